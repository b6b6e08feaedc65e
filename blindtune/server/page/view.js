// What the page shows, from the documents of /v1/events; see blindtune/server/api/events.py.

import { el } from "./dom.js";
import { bytes, count, duration, phase, short, when, words } from "./format.js";

const LONG = ["Study", "Parameters"];

const facts = (...pairs) =>
  el(
    "dl",
    { class: "facts" },
    pairs.filter((pair) => pair && pair[1] != null).map(([name, ...value]) =>
      el("div", { class: LONG.includes(name) && "wide" }, el("dt", {}, name), el("dd", {}, ...value))
    )
  );

const badge = (state) => el("span", { class: `state ${state}` }, state);

const copied = (text) =>
  // Browsers offer the clipboard over https and on loopback only.
  navigator.clipboard && el("button", { type: "button", class: "copy", "data-copy": text }, "Copy");

const named = (id, tenant) => [
  el("span", { class: "id", title: id }, short(id)),
  tenant && el("span", { class: "tenant" }, tenant),
];

export function overview({ self, studies, jobs }) {
  const among = (state) => jobs.filter((job) => job.state === state).length;
  const card = (name, value, small) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value, small && el("small", {}, small)));
  const { usage, quota } = self;
  return [
    card("Studies", count(self.studies ?? studies.length)),
    card("Training", count(among("running")), quota && quota.cores < 1e5 && `${count(quota.cores)} cores at most`),
    card("Waiting", count(among("queued")), quota && `${count(quota.jobs)} jobs at most`),
    card("Stored", bytes(usage.bytes), quota && `of ${bytes(quota.bytes)}`),
    self.machine && card("Memory free", bytes(self.machine.available), `${self.machine.cores} cores`),
  ];
}

export function running(job) {
  const p = job.progress;
  const share = p ? p.done / p.total : 0;
  const steps = p?.steps ?? 0;
  const at = !p
    ? "starting"
    : p.step
      ? `Step ${p.step} of ${steps}: ${phase(p.phase)}`
      : `Before the first step: ${phase(p.phase)}`;
  const title = `job-${job.id}`;
  return el(
    "article",
    { class: "job", "data-key": job.id, "aria-labelledby": title },
    el("header", {}, el("h3", { id: title }, "Study ", named(job.study, job.tenant)), badge(job.state)),
    el("p", { class: "at" }, `${at}, ${Math.floor(100 * share)} %`),
    track(p, share),
    p && figures(job, p),
    p && Object.keys(p.operations).length > 0 && operations(p)
  );
}

// One segment a step; before the first step a single one.
function track(p, share) {
  const steps = p?.step ? p.steps : 1;
  const filled = (n) => `${100 * Math.min(1, Math.max(0, share * steps - n))}%`;
  const segments = Array.from({ length: steps }, (_, n) => el("span", {}, el("i", { width: filled(n) })));
  const told = { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": "Training" };
  return el("div", { class: "track", ...told, "aria-valuenow": Math.floor(100 * share) }, segments);
}

function figures(job, p) {
  const total = (of) => Object.values(of ?? {}).reduce((a, b) => a + b, 0);
  const left = p.modulus_bits && [
    `${p.level}; ${Math.round(p.modulus_bits)} of ${Math.round(p.modulus_bits_whole)} bits`,
    el("div", { class: "meter" }, el("i", { width: `${(100 * p.modulus_bits) / p.modulus_bits_whole}%` })),
  ];
  return facts(
    ["Level and modulus left", ...(left ?? [String(p.level)])],
    p.step > 0 && ["Operations", `${count(total(p.operations))} of ${count(total(p.planned))}`],
    ["Time so far", duration(p.seconds)],
    ["Time left", p.eta == null ? "not known yet" : `about ${duration(p.eta)}`],
    p.memory && ["Memory", bytes(p.memory)],
    ["Cores", String(job.cores)],
    job.attempts > 1 && ["Attempt", String(job.attempts)]
  );
}

function operations(p) {
  const names = Object.keys({ ...p.planned, ...p.operations }).sort();
  const head = ["Operation", "Done", "Planned"].map((name) => el("th", { scope: "col" }, name));
  const rows = names.map((name) =>
    el(
      "tr",
      { "data-key": name },
      el("th", { scope: "row" }, words(name)),
      el("td", {}, count(p.operations[name] ?? 0)),
      el("td", {}, p.planned?.[name] == null ? "" : count(p.planned[name]))
    )
  );
  const table = el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows));
  return el("details", { class: "more" }, el("summary", {}, "Operations by kind"), table);
}

export const waiting = (job, n) =>
  el(
    "li",
    { "data-key": job.id, class: "row" },
    el("span", { class: "muted" }, `${n + 1}.`),
    el("span", {}, named(job.study, job.tenant)),
    el("span", {}, `since ${when(job.queued)}`),
    el("span", {}, [job.priority ? `priority ${job.priority}` : "", job.step ? `goes on after step ${job.step}` : ""].filter(Boolean).join(", "))
  );

export function study(of, jobs) {
  const job = jobs[0];
  return el(
    "li",
    { "data-key": `${of.tenant ?? ""}/${of.study}` },
    el(
      "details",
      {},
      el(
        "summary",
        { class: "row" },
        el("span", {}, named(of.study, of.tenant)),
        el("span", {}, badge(of.state)),
        el("span", { class: "said muted" }, said(of, job)),
        el("span", { class: "size" }, el("span", { class: "unseen" }, "size "), bytes(of.bytes)),
        el("span", { class: "when" }, el("span", { class: "unseen" }, "changed "), when(of.changed))
      ),
      panel(of, jobs)
    )
  );
}

function said(of, job) {
  const p = job?.progress;
  if (of.state === "running" && p) return p.step ? `step ${p.step} of ${p.steps}` : phase(p.phase);
  if (of.state === "uploading") return `${of.bundles.here} of ${of.bundles.expected} bundles are here`;
  if (of.state === "ready") return "uploaded, not started";
  if (of.state === "done") return "the encrypted head is ready";
  return of.error;
}

function panel(of, jobs) {
  const p = of.parameters;
  return el(
    "div",
    { class: "panel" },
    of.error && el("p", { class: "alert" }, `${of.error}. ${of.remedy}`),
    // Operators are told a tenant, and cannot fetch.
    of.state === "done" && of.head && !of.tenant && fetching(of),
    facts(
      ["Study", el("code", {}, of.study), " ", copied(of.study)],
      of.members && ["Data of members", `${of.uploaded.length} of ${of.members.length}`, missing(of)],
      of.keys != null && ["Evaluation keys", of.keys ? "here" : "not here yet"],
      ["Stored", bytes(of.bytes)],
      of.head && ["Encrypted head", bytes(of.head.bytes)],
      p && ["Parameters", `ring degree ${count(p.ring_degree)}, ${Math.round(p.modulus_bits)} bits of modulus, ${p.security ? `${p.security}-bit security` : "insecure test"}`],
      of.steps && ["Steps", String(of.steps)],
      ["First seen", when(of.created)]
    ),
    jobs.length > 0 && el("div", {}, el("h3", {}, "Jobs"), el("ul", { class: "tries" }, jobs.map(attempt)))
  );
}

const missing = (of) => {
  const names = of.members.filter((name) => !of.uploaded.includes(name));
  return names.length > 0 && el("span", { class: "tenant" }, `missing: ${names.join(", ")}`);
};

function attempt(job) {
  const took = job.started && job.state !== "queued" ? `, ${duration(job.changed - job.started)}` : "";
  const why = job.error ? `: ${job.error}` : "";
  return el("li", { "data-key": job.id }, badge(job.state), ` queued ${when(job.queued)}${took}${why}`);
}

function fetching(of) {
  const commands = [`blindtune fetch STUDY --server ${location.origin}`, "blindtune decrypt STUDY"];
  return el(
    "div",
    { class: "get" },
    el("strong", {}, "Fetch the head"),
    el(
      "p",
      {},
      "At the hospital, where the key is; STUDY is the directory that ",
      el("code", {}, "blindtune encrypt"),
      " made. What is downloaded is encrypted: only the key's holder can read it."
    ),
    el("ol", {}, commands.map((text) => el("li", {}, el("code", {}, text), copied(text))))
  );
}
