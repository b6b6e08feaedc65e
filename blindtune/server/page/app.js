// The page: who is signed in, what the server tells, and drawing it.

import { fill } from "./dom.js";
import { short } from "./format.js";
import { follow } from "./stream.js";
import * as view from "./view.js";

const TOKEN = "blindtune-token";
const $ = (id) => document.getElementById(id);

const fresh = () => ({ self: null, studies: new Map(), jobs: new Map(), whole: false });
let told = fresh();
let leaving = null;
let drawing = 0;

const keyOf = (document) => `${document.tenant ?? ""}/${document.study}`;

function take(name, data) {
  if (name === "begin") {
    // A new connection tells everything once more.
    told = { ...fresh(), self: told.self };
    return;
  }
  if (name === "self") told.self = data;
  if (name === "study") told.studies.set(keyOf(data), data);
  if (name === "job") {
    announce(told.jobs.get(data.id), data);
    told.jobs.set(data.id, data);
  }
  if (name === "gone") (data.job ? told.jobs.delete(data.job) : told.studies.delete(keyOf(data)));
  if (name === "whole") told.whole = true;
  if (told.whole && told.self && !drawing) drawing = requestAnimationFrame(draw);
}

// Screen readers hear of states, not of every tick.
function announce(before, job) {
  if (!told.whole || before?.state === job.state) return;
  $("news").textContent = `Study ${short(job.study)}: ${job.state}${job.error ? `, ${job.error}` : ""}`;
}

function draw() {
  drawing = 0;
  if (!told.whole) return;
  const jobs = [...told.jobs.values()].sort((a, b) => (a.id < b.id ? 1 : -1));
  const studies = [...told.studies.values()].sort((a, b) => b.changed - a.changed);
  const running = jobs.filter((job) => job.state === "running").reverse();
  const queue = jobs
    .filter((job) => job.state === "queued")
    .sort((a, b) => b.priority - a.priority || a.queued - b.queued);
  const { self } = told;
  $("name").textContent = self.tenant ? `Tenant ${self.tenant}` : "Operator";
  fill($("overview"), view.overview({ self, studies, jobs }));
  fill($("running"), running.map(view.running));
  fill($("queue"), queue.map(view.waiting));
  fill($("studies"), studies.map((of) => view.study(of, jobs.filter((job) => keyOf(job) === keyOf(of)))));
  $("running-none").hidden = running.length > 0;
  $("queue-none").hidden = queue.length > 0;
  $("queue-note").hidden = new Set(queue.map((job) => job.tenant)).size < 2;
  $("studies-none").hidden = studies.length > 0;
  const more = (self.studies ?? 0) - studies.length;
  $("studies-more").hidden = more <= 0;
  $("studies-more").textContent = `${more} older ones are not shown.`;
  $("board").hidden = false;
  document.title = running.length ? `${running.length} training · blindtune server` : "blindtune server";
}

function show(signedIn) {
  $("door").hidden = signedIn;
  $("who").hidden = !signedIn;
  if (!signedIn) $("board").hidden = true;
}

function connection(state) {
  $("link").className = `link ${state}`;
  $("link").textContent = state === "live" ? "live" : "connecting";
}

async function enter(token) {
  const abort = new AbortController();
  leaving = abort;
  told = fresh();
  show(true);
  connection("lost");
  const refused = await follow("/v1/events", token, abort.signal, { event: take, state: connection });
  if (refused) leave("The server does not accept this token. It may be mistyped, expired or revoked.");
}

function leave(why = "") {
  leaving?.abort();
  cancelAnimationFrame(drawing);
  drawing = 0;
  sessionStorage.removeItem(TOKEN);
  told = fresh();
  for (const id of ["overview", "running", "queue", "studies"]) fill($(id));
  document.title = "blindtune server";
  show(false);
  $("token-error").textContent = why;
  $("token-error").hidden = !why;
  $("token").focus();
}

$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = $("token").value.trim();
  $("token").value = "";
  if (!/^[\x21-\x7e]+$/.test(token)) return leave("A token has letters, digits and signs only, and no spaces.");
  sessionStorage.setItem(TOKEN, token);
  $("token-error").hidden = true;
  enter(token);
  $("main").focus();
});

$("leave").addEventListener("click", () => leave());

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  $("news").textContent = "Copied";
});

const kept = sessionStorage.getItem(TOKEN);
if (kept) enter(kept);
else show(false);
