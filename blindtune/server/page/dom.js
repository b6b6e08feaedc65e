// Elements from plain calls, and one tree made equal to another without losing focus or what is folded open.

// Strings become text, never markup: nothing a tenant named can run here.
export function el(tag, given, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(given ?? {})) {
    // The page's policy allows no style attributes.
    if (name === "width") node.style.width = value;
    else if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

const keyOf = (node) => node?.dataset?.key;

// Makes the children of a node equal to others; those with the same data-key are kept and moved.
export function fill(node, ...children) {
  const fresh = document.createElement(node.nodeName);
  fresh.append(...children.flat().filter((child) => child != null && child !== false));
  morphChildren(node, fresh);
}

function morph(old, fresh) {
  if (old.nodeType === Node.TEXT_NODE && fresh.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
  } else if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
  } else {
    morphAttributes(old, fresh);
    morphChildren(old, fresh);
  }
}

function morphAttributes(old, fresh) {
  for (const { name, value } of fresh.attributes) {
    if (name !== "style" && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const { name } of [...old.attributes]) {
    // What a reader folded open stays so.
    if (!fresh.hasAttribute(name) && name !== "open" && name !== "style") old.removeAttribute(name);
  }
  if (old.style.width !== fresh.style.width) old.style.width = fresh.style.width;
}

function morphChildren(old, fresh) {
  const keyed = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let at = old.firstChild;
  for (const child of [...fresh.childNodes]) {
    const key = keyOf(child);
    const match = key ? keyed.get(key) : keyOf(at) ? null : at;
    if (!match) {
      old.insertBefore(child, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    morph(match, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}
