// Dialogs: a job's life, maintenance, and asking before anything is done. <dialog> keeps the focus inside by itself.
import { $, h, show } from "./build.js";
import { ask } from "./stream.js";
import { chip, idOf, name, span, state, time, usd } from "./words.js";

export function install() {
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog || event.target.closest("[data-action=close]")) dialog.close();
    });
  }
  $("job").addEventListener("close", () => clearTimeout(again));
  $("job-body").addEventListener("click", act);
  $("m-until").addEventListener("change", () => ($("m-at-row").hidden = $("m-until").value !== "at"));
  $("maintain-form").addEventListener("submit", begin);
}

// --- asking ---------------------------------------------------------------------------------------------------------

/** Ask before doing; `work` runs on yes, and what it raises is told in the dialog. */
export function confirm(title, text, yes, work) {
  const dialog = $("confirm");
  $("confirm-title").textContent = title;
  $("confirm-text").textContent = text;
  $("confirm-error").textContent = "";
  $("confirm-yes").textContent = yes;
  $("confirm-form").onsubmit = async (event) => {
    event.preventDefault();
    await trying($("confirm-error"), $("confirm-yes"), async () => {
      await work();
      dialog.close();
    });
  };
  dialog.showModal();
}

async function trying(place, button, work) {
  place.textContent = "";
  button.disabled = true;
  try {
    await work();
  } catch (error) {
    place.textContent = error.status ? error.message : "Vessel could not be reached, so it is not known whether this was done. Look again.";
  } finally {
    button.disabled = false;
  }
}

// --- maintenance ----------------------------------------------------------------------------------------------------

export function maintain({ tiers }) {
  const kept = $("m-tier").value;
  show($("m-tier"), h("option", { value: "" }, "everything"), (tiers?.data ?? []).map((tier) => h("option", { value: tier.name }, `only tier ${tier.name}`)));
  $("m-tier").value = kept;
  $("maintain-error").textContent = "";
  $("maintain").showModal();
}

function begin(event) {
  event.preventDefault();
  const until = $("m-until").value;
  const button = event.target.querySelector("[type=submit]");
  trying($("maintain-error"), button, async () => {
    const body = { reason: $("m-reason").value };
    if ($("m-tier").value) body.tier = $("m-tier").value;
    if (until === "at") {
      const at = new Date($("m-at").value);
      if (Number.isNaN(at.getTime())) throw Object.assign(new Error("Choose a time."), { status: 400 });
      body.until = at.toISOString();
    } else if (until) body.until = until;
    await ask("/v1/maintenance", "PUT", body);
    $("maintain").close();
    event.target.reset();
    $("m-at-row").hidden = true;
  });
}

export function end(tier) {
  confirm("End maintenance?", tier ? `Jobs of tier ${tier} go on, no faster than the limits allow.` : "Held jobs go on, no faster than the limits allow.", "End maintenance", () => ask(`/v1/maintenance${tier ? `?tier=${encodeURIComponent(tier)}` : ""}`, "DELETE"));
}

// --- a job ----------------------------------------------------------------------------------------------------------

let again = 0;
let shown = "";

/** Show a job's life, and keep it current while it goes on. */
export async function job(id) {
  shown = id;
  clearTimeout(again);
  $("job-title").textContent = `Job ${idOf(id)}`;
  show($("job-body"), h("p", { class: "muted" }, "Reading …"));
  if (!$("job").open) $("job").showModal();
  $("job-title").focus();
  await look(id);
}

async function look(id) {
  try {
    const found = await ask(`/v1/console/jobs/${encodeURIComponent(id)}`);
    if (shown !== id || !$("job").open) return;
    tell(found);
    if (!found.finished_at) again = setTimeout(() => look(id), 2000);
  } catch (error) {
    if (shown !== id) return;
    show($("job-body"), h("p", { class: "error", role: "alert" }, error.status ? error.message : "Vessel could not be reached. Close this and try again."));
  }
}

function fact(label, value) {
  return value === null || value === undefined || value === "" ? null : h("div", {}, h("dt", {}, label), h("dd", {}, value));
}

function tell(found) {
  const tags = Object.entries(found.policy.tags ?? {}).map(([key, value]) => `${key}=${value}`).join(", ");
  const most = found.usage?.unknown_calls ? "at most " : ""; // No answer was seen of some of its calls.
  show($("job-body"),
    h("p", { class: "mono small wrap" }, found.id),
    h("dl", { class: "facts" },
      fact("State", state(found.state)), fact("Model", name(found.model ?? "")), fact("Tier", found.tier), fact("Priority", found.priority), fact("Cost", found.cost_usd === null ? null : most + usd(found.cost_usd)),
      fact("Tokens", found.usage ? `${most}${found.usage.prompt_tokens ?? 0} in, ${found.usage.completion_tokens ?? 0} out` : null), fact("Deadline", found.deadline_at && time(found.deadline_at, { fine: true })), fact("Batch", found.batch && idOf(found.batch)), fact("Again of", found.retry_of && idOf(found.retry_of)), fact("Tags", tags)),
    found.waiting ? h("p", { class: "note" }, h("b", {}, "Waits: "), found.waiting.detail, found.waiting.until ? [", about until ", time(found.waiting.until, { fine: true })] : "") : null,
    found.way_out ? h("div", { class: "note bad" }, h("div", {}, h("b", {}, found.reason ?? found.state), found.message ? `: ${found.message}` : ""), h("div", {}, h("b", {}, "Way out: "), found.way_out)) : null,
    h("h3", {}, "Timeline"),
    h("ol", { class: "timeline" }, found.timeline.map((entry, at) => step(entry, found.timeline[at - 1], Boolean(found.finished_at)))),
    found.routing.length ? h("details", { "data-key": "why" }, h("summary", {}, "Why this model"), h("ul", { class: "small" }, found.routing.map((why) => h("li", {}, why)))) : null,
    h("div", { class: "actions" }, found.finished_at ? h("button", { type: "button", class: "quiet", "data-do": "retry", "data-id": found.id }, "Run again …") : h("button", { type: "button", class: "quiet", "data-do": "cancel", "data-id": found.id }, "Cancel job …")));
}

function step(entry, before, ended) {
  const after = before ? (Date.parse(entry.at) - Date.parse(before.at)) / 1000 : null;
  const call = entry.attempt;
  return h("li", { class: entry.tone },
    h("div", { class: "row" }, h("span", { class: "strong" }, call ? `${entry.title} on ` : entry.title, call ? name(call.model) : null), h("span", { class: "muted small" }, time(entry.at, { fine: true }), after === null ? "" : ` · +${span(after)}`)),
    entry.detail ? h("div", { class: "small muted wrap" }, entry.detail) : null,
    call ? h("div", { class: "small" }, chip(call.outcome === "unknown" ? `no answer ${ended ? "seen" : "yet"}` : call.reason ?? call.outcome, call.outcome === "succeeded" ? "good" : call.outcome === "unknown" && !ended ? "busy" : "bad"), call.status ? ` HTTP ${call.status}` : "", call.duration_ms === null ? "" : ` · ${span(call.duration_ms / 1000)}`, call.cost_usd ? ` · ${usd(call.cost_usd)}` : "", call.counted ? "" : " · not counted as an attempt", call.message ? h("div", { class: "wrap" }, call.message) : null, call.notes.map((note) => h("div", { class: "muted" }, note))) : null);
}

function act(event) {
  const button = event.target.closest("[data-do]");
  if (!button) return;
  const id = button.dataset.id;
  if (button.dataset.do === "retry") confirm("Run this job again?", "The same request becomes a new job, which may cost as much as this one.", "Run again", async () => job((await ask(`/v1/jobs/${id}/retry`, "POST")).id));
  else confirm("Cancel this job?", "It ends at once while it waits; a call under way is cut and may still be charged.", "Cancel job", async () => {
    await ask(`/v1/jobs/${id}`, "DELETE");
    await look(id);
  });
}
