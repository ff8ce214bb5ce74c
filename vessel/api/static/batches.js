// Batches with their progress; older ones on request.
import { $, h, show } from "./build.js";
import { ask } from "./stream.js";
import { count, empty, idOf, name, span, state, time, usd } from "./words.js";

const TITLES = ["Batch", "Status", "Progress", "Finish", "Created", "Cost"];
const iso = (seconds) => (seconds ? new Date(seconds * 1000).toISOString() : null);
const PAGE = 100;
// Batches that are not in the feed, by id, once older ones were asked for; and behind which one the next page begins.
const older = new Map();
let asked = false;
let after = null;
let fed = [];

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
  keep(found.data);
  const shown = found.data.length + older.size;
  $("batches-note").textContent = found.total ? `${count(found.open)} open · ${count(Math.min(shown, found.total))} of ${count(found.total)} shown` : "";
  $("more").hidden = shown >= found.total;
}

// What leaves the feed goes on being shown below it.
function keep(rows) {
  if (!asked) return;
  const now = new Set(rows.map((row) => row.id));
  const before = older.size;
  const came = [...now].filter((id) => older.delete(id)).length;
  for (const row of fed) if (!now.has(row.id)) older.set(row.id, row);
  fed = rows;
  if (came || older.size !== before) showOlder();
}

function showOlder() {
  const rows = [...older.values()].sort((a, b) => (a.created_at === b.created_at ? (a.id < b.id ? 1 : -1) : a.created_at < b.created_at ? 1 : -1));
  show($("older"), rows.length ? h("table", { class: "cards batches", "aria-label": "Older batches" }, h("tbody", {}, rows.map((row) => line(row, Date.now())))) : null);
}

/** Read on from the newest batch until there is a page with some that were not shown. */
export async function more({ batches: found }) {
  asked = true;
  keep(found.data);
  for (let left = Math.ceil(found.total / PAGE) + 1; left > 0; left -= 1) {
    const query = after ? `&after=${encodeURIComponent(after)}` : "";
    after = null; // Where the page cannot be read, the next try begins anew.
    const page = await ask(`/v1/batches?limit=${PAGE}${query}`);
    after = page.has_more ? page.last_id : null;
    const news = page.data.filter((row) => !older.has(row.id) && !fed.some((one) => one.id === row.id));
    for (const row of news) older.set(row.id, asRow(row));
    if (news.length) break;
  }
  showOlder();
}

export function forget() {
  older.clear();
  asked = false;
  after = null;
  fed = [];
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
