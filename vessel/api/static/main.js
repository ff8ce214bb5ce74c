// The console: signs in, follows the feed, and gives each section to what shows it.
import { $ } from "./build.js";
import * as batches from "./batches.js";
import * as dialogs from "./dialogs.js";
import * as panels from "./panels.js";
import * as spending from "./spending.js";
import { Refused, Stream, key } from "./stream.js";
import { clockOf, tones, utc } from "./words.js";

const HIDDEN_MS = 30000;
let seen = {};

const stream = new Stream("/v1/console/events", { seen: take, lost, signedOut });

function take(news) {
  seen = { ...seen, ...news };
  $("board").hidden = false;
  if (!$("login").hidden) {
    $("login").hidden = true;
    $("main").focus();
  }
  const has = (...names) => names.some((name) => name in news);
  top();
  if (has("tiers", "spending", "batches")) panels.figures(seen);
  if (has("tiers", "traces")) panels.tiers(seen);
  if (has("models", "refused", "refusals")) panels.limits(seen);
  panels.steer(seen);
  if (has("batches") || !seen.clock?.redis) batches.batches(seen);
  if (has("spending", "budgets")) spending.spending(seen);
  if (has("failures")) panels.failures(seen);
  if (has("jobs")) panels.jobs(seen);
}

function top() {
  const { vessel, clock, who } = seen;
  if (vessel) {
    $("place").textContent = `${vessel.org} · ${vessel.plan}`;
    $("version").textContent = `Vessel ${vessel.version}`;
    $("status").textContent = vessel.status;
    $("status").title = vessel.reasons.join(" ") || "Every tier is served and nothing is held back.";
    $("status").className = `pill ${tones[vessel.status] ?? ""}`;
  }
  if (who) $("who").textContent = `${who.tenant}${who.admin && who.keyed ? " · admin" : ""}`;
  $("sign-out").hidden = !key.get();
  const away = clock && !clock.redis;
  const reasons = vessel?.status === "healthy" ? "" : (vessel?.reasons ?? []).join(" ");
  if (away) tell(`${clock.why} ${clock.at ? `What you see is from ${clockOf(clock.at)}.` : ""}`, "bad");
  else tell(reasons, vessel?.status === "down" ? "bad" : "warn");
  $("board").classList.toggle("stale", Boolean(away));
  if (away) {
    $("status").textContent = "not known";
    $("status").className = "pill bad";
  }
  if (clock?.at) {
    $("live").textContent = away ? "" : `live · ${clockOf(clock.at)}`;
    $("live").title = utc(clock.at);
  }
}

/** Tell in the banner; the same text twice is announced once. */
function tell(text, tone = "warn", button = null) {
  const banner = $("banner");
  const wanted = `banner ${text ? `shown ${tone}` : ""}`;
  if (banner.className !== wanted) banner.className = wanted;
  if (banner.firstChild?.data === text && !button && banner.childNodes.length <= 1) return;
  banner.replaceChildren(...(text ? [text] : []), ...(button ? [button] : []));
}

function lost(until, why) {
  $("live").textContent = "";
  $("board").classList.add("stale");
  const at = seen.clock?.at ? ` What you see is from ${clockOf(seen.clock.at)}.` : "";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet";
  button.textContent = "Try now";
  button.addEventListener("click", () => stream.now());
  const wait = Math.max(1, Math.round((until - Date.now()) / 1000));
  tell(`${why || "Connection lost."} Trying again in ${wait} s.${at} `, "bad", button);
}

function signedOut(message) {
  const had = key.get();
  key.forget();
  seen = {};
  batches.forget();
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  $("board").hidden = true;
  $("login").hidden = false;
  $("sign-out").hidden = true;
  for (const id of ["who", "place", "live", "version"]) $(id).textContent = "";
  for (const id of ["figures", "tiers", "steer", "limits", "refused", "batches", "spending", "failures", "jobs", "job-body"]) $(id).replaceChildren();
  $("status").textContent = "signed out";
  $("status").className = "pill";
  tell("");
  $("login-error").textContent = had ? message : "";
  $("key").value = "";
  $("key").focus();
}

$("login-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("key").value.trim();
  if (!/^[\x21-\x7e]+$/.test(text)) {
    $("login-error").textContent = "A key has no spaces and only plain characters. Copy it again.";
    return;
  }
  key.set(text);
  $("login-error").textContent = "";
  stream.start();
});
$("sign-out").addEventListener("click", () => {
  stream.stop();
  key.forget();
  signedOut("");
});
$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("find-id").value.trim();
  if (id) dialogs.job(id);
});
$("more").addEventListener("click", async () => {
  $("more").disabled = true;
  try {
    await batches.more(seen);
    batches.batches(seen);
  } catch (error) {
    $("batches-note").textContent = error instanceof Refused ? error.message : "Older batches could not be read. Try again.";
  } finally {
    $("more").disabled = false;
  }
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  switch (button?.dataset.action) {
    case "job": return dialogs.job(button.dataset.id);
    case "maintain": return dialogs.maintain(seen);
    case "end": return dialogs.end(button.dataset.tier);
    default: return undefined;
  }
});

// Nobody looks at a hidden tab, so that it costs nothing.
let hiding = 0;
document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => stream.stop(), HIDDEN_MS);
  else if ($("login").hidden) stream.start();
});
const redraw = () => spending.redraw(seen);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let resizing = 0;
addEventListener("resize", () => {
  clearTimeout(resizing);
  resizing = setTimeout(redraw, 150);
});

dialogs.install();
stream.start();
