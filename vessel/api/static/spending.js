// Spending today: a chart of each hour, stacked by model, and the same as a table.
import { $, h, show } from "./build.js";
import { count, empty, name, plural, short, usd } from "./words.js";

const COLOURS = 8;
let chart = null;
let drawn = "";

const colour = (at) => getComputedStyle(document.documentElement).getPropertyValue(`--series-${at % COLOURS}`).trim();
const ink = (what) => getComputedStyle(document.documentElement).getPropertyValue(what).trim();

function stacked(found) {
  const slots = Math.floor((Date.now() - Date.parse(found.day)) / (found.bucket_s * 1000)) + 1;
  const first = Math.max(0, Math.min(slots - 12, ...found.models.flatMap((model) => Object.keys(model.series).map(Number))));
  // uPlot takes a single point in time for a day of them.
  const times = Array.from({ length: Math.max(2, slots - first) }, (_, at) => Date.parse(found.day) / 1000 + (first + at) * found.bucket_s);
  let below = times.map(() => 0);
  const layers = found.models.map((model) => (below = below.map((value, at) => value + (model.series[first + at] ?? 0))));
  return { times, layers };
}

function draw(found) {
  const place = $("chart");
  const { times, layers } = stacked(found);
  const shape = JSON.stringify([found.models.map((model) => model.model), place.clientWidth, matchMedia("(prefers-color-scheme: dark)").matches]);
  const data = [times, ...layers.toReversed()];
  place.setAttribute("aria-label", `Cost by hour: ${usd(found.total.cost_usd)} in ${plural(found.total.calls, "call")} today; the table names the models.`);
  if (chart && shape === drawn) {
    chart.setData(data);
    return;
  }
  chart?.destroy();
  drawn = shape;
  const grid = { stroke: ink("--line"), width: 1 };
  const axis = { stroke: ink("--muted"), grid, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const bars = window.uPlot.paths.bars({ size: [0.8, 48, 2], align: 1 });
  chart = new window.uPlot({
    width: Math.max(200, place.clientWidth), height: 190, legend: { show: false }, cursor: { show: false }, padding: [8, 20, 0, 0],
    scales: { x: { time: true, range: (_, low, high) => [low, high + found.bucket_s] }, y: { range: (_, __, high) => [0, (high || 0.01) * 1.1] } },
    axes: [{ ...axis, grid: { show: false }, space: 70, size: 30, values: "{HH}:{mm}" }, { ...axis, size: 64, values: (_, ticks) => ticks.map(usd) }],
    series: [{}, ...found.models.toReversed().map((model, at) => ({ label: model.model, fill: colour(found.models.length - 1 - at), stroke: colour(found.models.length - 1 - at), width: 0, paths: bars, points: { show: false } }))],
  }, data, place);
}

function cap(budget) {
  return ["day", "month"].filter((part) => budget[part]).map((part) => {
    const { cap_usd: most, spent_usd: spent } = budget[part];
    const used = most ? Math.min(1, spent / most) : 0;
    const label = `${budget.tenant ? "Your" : "Everybody's"} cap of this ${part}`;
    return h("div", { class: "cap" }, h("span", { class: "small" }, label), h("div", { class: `bar ${used >= 1 ? "bad" : used >= 0.8 ? "warn" : "good"}`, role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": most, "aria-valuenow": spent }, h("span", { style: { "--w": `${(used * 100).toFixed(1)}%` } })), h("span", { class: "small left" }, `${usd(spent)} of ${usd(most)}`));
  });
}

export function spending({ spending: found, budgets }) {
  if (!found) return;
  $("spending-note").textContent = `UTC day${found.complete ? "" : " · the ledger is still being read"}`;
  $("chart").hidden = !found.models.length;
  const rows = found.models.map((model, at) => h("tr", { "data-key": model.model },
    h("th", { scope: "row" }, h("span", { class: "swatch", style: { background: `var(--series-${at % COLOURS})` } }), name(model.model)),
    h("td", { class: "num", "data-label": "Calls" }, count(model.calls), model.unknown ? h("span", { class: "muted small", title: "no answer was seen; booked at the most they can have cost" }, ` (${model.unknown} unknown)`) : null),
    h("td", { class: "num", "data-label": "In" }, short(model.input_tokens)), h("td", { class: "num", "data-label": "Out" }, short(model.output_tokens)),
    h("td", { class: "num strong", "data-label": "Cost" }, usd(model.cost_usd))));
  show($("spending"),
    found.models.length ? h("table", { class: "cards" }, h("thead", {}, h("tr", {}, ["Model", "Calls", "Tokens in", "Tokens out", "Cost"].map((title, at) => h("th", { scope: "col", class: at ? "num" : "" }, title)))), h("tbody", {}, rows), h("tfoot", {}, h("tr", {}, h("th", { scope: "row" }, "Total"), h("td", { class: "num", "data-label": "Calls" }, count(found.total.calls)), h("td", { class: "num", "data-label": "In" }, short(found.total.input_tokens)), h("td", { class: "num", "data-label": "Out" }, short(found.total.output_tokens)), h("td", { class: "num strong", "data-label": "Cost" }, usd(found.total.cost_usd))))) : empty("Nothing was spent today."),
    (budgets ?? []).flatMap(cap));
  if (found.models.length) draw(found);
}

export function redraw(seen) {
  drawn = "";
  if (seen.spending?.models.length) draw(seen.spending);
}
