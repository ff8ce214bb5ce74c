// Batches with their progress; older ones on request.
import { $, h, show } from "./build.js";
import { ask } from "./stream.js";
import { count, empty, idOf, name, span, state, time, usd } from "./words.js";

const TITLES = ["Batch", "Status", "Progress", "Finish", "Created", "Cost"];
const iso = (seconds) => (seconds ? new Date(seconds * 1000).toISOString() : null);
let older = [];

function progress(row) {
  const of = Math.max(1, row.total);
  const done = row.completed + row.failed;
  return h("div", { class: "progress" },
    h("div", { class: "bar good", role: "progressbar", "aria-label": `Progress of ${row.id}`, "aria-valuemin": 0, "aria-valuemax": row.total, "aria-valuenow": done },
      h("span", { style: { "--w": `${(100 * row.completed) / of}%` } }), h("span", { class: "failed", style: { "--w": `${(100 * row.failed) / of}%` } })),
    h("div", { class: "small" }, `${count(done)} / ${count(row.total)}`, row.failed ? h("span", { class: "bad-text" }, ` · ${count(row.failed)} failed`) : null, row.per_minute ? h("span", { class: "muted" }, ` · ${count(row.per_minute)}/min`) : null));
}

function finish(row, now) {
  if (row.ended) return row.ended_at ? [h("span", { class: "muted" }, "ended "), time(row.ended_at, { now })] : "";
  if (!row.finish_at) return h("span", { class: "muted" }, row.total ? "not known yet" : "");
  return [time(row.finish_at, { now }), h("div", { class: "muted small" }, `in about ${span((Date.parse(row.finish_at) - now) / 1000)}`)];
}

function line(row, now) {
  const told = Object.entries(row.metadata ?? {}).map(([key, value]) => `${key}: ${value}`).join(" · ");
  return h("tr", { "data-key": row.id },
    h("th", { scope: "row" }, h("span", { title: row.id, class: "mono" }, idOf(row.id)), told ? h("div", { class: "muted small" }, name(told)) : row.model ? h("div", { class: "muted small" }, name(row.model)) : null),
    h("td", { "data-label": "Status" }, state(row.status), row.faults?.map((fault) => h("div", { class: "small bad-text" }, fault))),
    h("td", { "data-label": "Progress", class: "progresscell" }, progress(row)),
    h("td", { "data-label": "Finish" }, finish(row, now)),
    h("td", { "data-label": "Created" }, time(row.created_at, { now })),
    h("td", { "data-label": "Cost", class: "num" }, usd(row.cost_usd)));
}

const table = (rows, now, head) => h("table", { class: "cards batches" }, head ? h("thead", {}, h("tr", {}, TITLES.map((title) => h("th", { scope: "col", class: title === "Cost" ? "num" : "" }, title)))) : null, h("tbody", {}, rows.map((row) => line(row, now))));

export function batches({ batches: found, clock }) {
  if (!found) return;
  const now = clock?.at ? Date.parse(clock.at) : Date.now();
  show($("batches"), found.data.length ? table(found.data, now, true) : empty("No batch yet:", "vessel batch submit requests.jsonl"));
  const shown = new Set([...found.data, ...older].map((row) => row.id)).size;
  $("batches-note").textContent = found.total ? `${count(found.open)} open · ${count(Math.min(shown, found.total))} of ${count(found.total)} shown` : "";
  $("more").hidden = shown >= found.total;
}

/** Read the next page of older batches and append it. */
export async function more({ batches: found }) {
  const known = new Set(found.data.map((row) => row.id));
  const last = older.at(-1)?.id ?? found.data.toSorted((a, b) => (a.created_at < b.created_at ? -1 : 1))[0]?.id;
  const page = await ask(`/v1/batches?limit=100${last ? `&after=${encodeURIComponent(last)}` : ""}`);
  older = [...older, ...page.data.filter((row) => !known.has(row.id)).map(asRow)];
  show($("older"), h("table", { class: "cards batches", "aria-label": "Older batches" }, h("tbody", {}, older.map((row) => line(row, Date.now())))));
}

export function forget() {
  older = [];
  show($("older"));
}

function asRow(batch) {
  const ended = batch.completed_at ?? batch.failed_at ?? batch.expired_at ?? batch.cancelled_at;
  return {
    id: batch.id, status: batch.status, ended: Boolean(ended), ended_at: iso(ended), model: batch.model, metadata: batch.metadata, total: batch.request_counts.total,
    completed: batch.request_counts.completed, failed: batch.request_counts.failed, per_minute: null, finish_at: null, created_at: iso(batch.created_at), cost_usd: batch.vessel?.cost_usd ?? 0,
    faults: (batch.errors?.data ?? []).slice(0, 3).map((fault) => fault.message),
  };
}
