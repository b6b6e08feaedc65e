// Server-sent events by fetch, because EventSource cannot send the Authorization header.

const LONGEST = 30_000;

const sleep = (ms, signal) =>
  new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });

// Calls on.event(name, data) for each event and on.state("live" | "lost") for the connection; returns when the
// signal aborts, or with the status of a refusal that trying again will not change.
export async function follow(url, token, signal, on) {
  let pause = 1000;
  while (!signal.aborted) {
    let wait = 0;
    try {
      const answer = await fetch(url, {
        headers: { Authorization: `Bearer ${token}`, Accept: "text/event-stream" },
        cache: "no-store",
        signal,
      });
      if (answer.status === 401 || answer.status === 403) return answer.status;
      wait = 1000 * Number(answer.headers.get("Retry-After") ?? 0);
      if (answer.ok) {
        on.state("live");
        on.event("begin", {});
        pause = 1000;
        await read(answer.body, on.event);
      }
    } catch {
      // The network or the server is away: below it is tried again.
    }
    if (signal.aborted) return 0;
    on.state("lost");
    await sleep(Math.max(wait, pause), signal);
    pause = Math.min(2 * pause, LONGEST);
  }
  return 0;
}

async function read(body, on) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) emit(block, on);
  }
}

function emit(block, on) {
  let name = "message";
  let data = "";
  for (const line of block.split("\n")) {
    if (line.startsWith("event: ")) name = line.slice(7);
    if (line.startsWith("data: ")) data += line.slice(6);
  }
  // A comment alone keeps the connection alive.
  if (data) on(name, JSON.parse(data));
}
