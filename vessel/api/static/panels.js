// Figures, tiers, limits, maintenance and breaker.
import { $, h, show } from "./build.js";
import { LIMITS, chip, count, empty, idOf, name, plural, short, span, state, time, usd } from "./words.js";

const sum = (rows, field) => rows.reduce((total, row) => total + row[field], 0);

/** A line of how many calls were answered in each of the last minutes. */
function trace(values, label) {
  const most = Math.max(1, ...values);
  const points = values.map((value, at) => `${(at * 100) / (values.length - 1)},${22 - (20 * value) / most}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  for (const [at, value] of [["viewBox", "0 0 100 24"], ["preserveAspectRatio", "none"], ["class", "trace"], ["role", "img"], ["aria-label", label]]) svg.setAttribute(at, value);
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

export function figures({ tiers, spending, batches, clock }) {
  if (!tiers || !spending || !batches || !clock) return;
  const rows = tiers.data;
  const waiting = sum(rows, "ticketed") + sum(rows, "backlog") + sum(rows, "parked");
  const tile = (label, value, note) => h("div", { class: "figure" }, h("div", { class: "muted small" }, label), h("div", { class: "value" }, value), h("div", { class: "muted small" }, note));
  show($("figures"),
    tile("Waiting", short(waiting), `${short(sum(rows, "ticketed"))} ticketed · ${short(sum(rows, "backlog"))} backlog · ${short(sum(rows, "parked"))} parked`),
    tile("Running", short(tiers.running), plural(sum(rows, "in_flight"), "call") + " in flight"),
    tile("Answered", short(sum(rows, "per_minute")), "in the last minute"),
    tile("Open batches", short(batches.open), `${short(batches.total)} kept`),
    tile("Spent today", usd(spending.total.cost_usd), `${plural(spending.total.calls, "call")}, UTC day`),
  );
}

export function tiers({ tiers: found, traces }) {
  if (!found) return;
  const rows = found.data.map((tier) => h("tr", { "data-key": tier.name },
    h("th", { scope: "row" }, h("div", { class: "strong" }, name(tier.name)), h("div", { class: "muted small" }, tier.served_by ? name(tier.served_by) : "nobody serves it")),
    cell("Workers", tier.workers ? count(tier.workers) : chip("none", "bad")),
    cell("Ticketed", short(tier.ticketed)), cell("Backlog", short(tier.backlog)), cell("Parked", short(tier.parked)), cell("In flight", short(tier.in_flight)),
    cell("Per minute", short(tier.per_minute)),
    h("td", { class: "tracecell", "data-label": "30 minutes" }, trace(traces?.[tier.name] ?? Array(30).fill(0), `Answers of ${tier.name} in the last 30 minutes`)),
    h("td", { class: "statecell", "data-label": "State" }, tier.held ? chip("maintenance", "warn") : tier.workers ? chip("serving", "good") : chip("asleep", "bad")),
  ));
  show($("tiers"), h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, ...["Tier", "Workers", "Ticketed", "Backlog", "Parked", "In flight", "Per minute", "30 minutes", "State"].map((title, at) => h("th", { scope: "col", class: at > 0 && at < 7 ? "num" : "" }, title)))),
    h("tbody", {}, rows)));
  const untold = found.parked - found.parked_told;
  $("tiers-note").textContent = untold > 0 ? `${count(untold)} more parked jobs are not told apart by tier` : "";
}

const cell = (label, value) => h("td", { class: "num", "data-label": label }, value);

/** One limit: how much of it is left. */
function bar(limit, model) {
  const [label, words] = LIMITS[limit.name];
  const left = Math.max(0, Math.min(limit.capacity, limit.left));
  const part = limit.capacity ? left / limit.capacity : 0;
  const tone = limit.again_in_s > 0 ? "bad" : part < 0.25 ? "warn" : "good";
  return h("div", { class: "limit", "data-key": limit.name, title: limit.learned ? "as Groq told it" : "as configured" },
    h("abbr", { title: words }, label),
    h("div", { class: `bar ${tone}`, role: "meter", "aria-label": `${label} left of ${model}`, "aria-valuemin": 0, "aria-valuemax": limit.capacity, "aria-valuenow": Math.floor(left), "aria-valuetext": `${count(Math.floor(left))} of ${count(limit.capacity)} ${words} left` }, h("span", { style: { "--w": `${(part * 100).toFixed(1)}%` } })),
    h("span", { class: "left" }, short(Math.floor(left)), h("span", { class: "muted" }, ` / ${short(limit.capacity)}`)));
}

function going(gate) {
  const waiting = gate.waiting.interactive + gate.waiting.normal + gate.waiting.batch;
  if (!gate.running && !waiting) return "idle";
  return `${count(gate.running)} in flight · ${count(waiting)} waiting${gate.longest_wait_s ? `, longest ${span(gate.longest_wait_s)}` : ""}`;
}

const why = (one) => LIMITS[one] ? LIMITS[one][1] : one.replaceAll("_", " ");

function refusals(found) {
  return h("table", { class: "cards refusals" },
    h("thead", {}, h("tr", {}, ["Model", "Why", "By", "This hour", "24 hours"].map((title, at) => h("th", { scope: "col", class: at > 2 ? "num" : "" }, title)))),
    h("tbody", {}, found.map((one) => h("tr", { "data-key": `${one.by} ${one.why} ${one.model}` },
      h("th", { scope: "row" }, name(one.model)), h("td", { "data-label": "Why" }, why(one.why)),
      h("td", { "data-label": "By" }, one.by === "gate" ? h("span", { title: "before anything was sent" }, "the gate") : one.by),
      h("td", { class: "num", "data-label": "This hour" }, count(one.this_hour)), h("td", { class: "num", "data-label": "24 hours" }, count(one.day))))));
}

export function limits({ models, refused, refusals: counted }) {
  if (models) {
    const cards = models.map((gate) => h("article", { class: "gate", "data-key": gate.model },
      h("div", { class: "gatehead" }, h("h3", {}, name(gate.model)), gate.breaker.state === "closed" ? null : chip(`breaker ${gate.breaker.state}`, gate.breaker.state === "open" ? "bad" : "warn")),
      h("div", { class: "muted small gatenote" }, `${gate.tier} · ${going(gate)}`),
      gate.limits.length ? h("div", { class: "bars" }, gate.limits.map((limit) => bar(limit, gate.model))) : h("p", { class: "muted small" }, "No limit is known."),
      gate.refusing.length ? h("ul", { class: "refusing" }, gate.refusing.map((one) => h("li", {}, `${one.text} `, h("b", {}, one.again_s ? `Again in ${span(one.again_s)}.` : "")))) : null,
    ));
    show($("limits"), models.length ? h("div", { class: "gates" }, cards) : empty("No model is served. Workers learn what Groq serves when they start:", "vessel worker"));
  }
  if (refused && counted) {
    const all = counted.reduce((sum, one) => sum + one.day, 0);
    const lately = refused.map((one) => h("li", {}, time(one.since, { fine: true }), h("span", {}, name(one.model)), h("span", {}, LIMITS[one.why]?.[0] ?? one.why), h("span", { class: "muted" }, `for ${span(one.for_s)}`)));
    show($("refused"), all || lately.length ? h("details", { "data-key": "lately" }, h("summary", {}, `Refused in the last 24 hours (${count(all)})`),
      all ? refusals(counted) : null,
      lately.length ? [h("h3", {}, "Used up while this was looked at"), h("ul", { class: "lately" }, lately)] : null) : null);
  }
}

export function steer({ maintenance, breaker, who, clock }) {
  if (!maintenance || !who) return;
  const now = clock?.at ? Date.parse(clock.at) : Date.now();
  const windows = maintenance.maintenance.map((one) => h("li", { "data-key": one.tier ?? "*", class: "window" },
    h("div", {}, chip("maintenance", "warn"), " ", h("span", { class: "strong" }, one.tier ? `Tier ${one.tier}` : "Everything")),
    h("div", { class: "small" }, one.reason ?? h("span", { class: "muted" }, "no reason was given")),
    h("div", { class: "muted small" }, "since ", time(one.since, { now }), one.until ? [" until ", time(one.until, { now }), `, ${span((Date.parse(one.until) - now) / 1000)} left`] : " until it is ended", ` · ${plural(one.held, "job")} held`),
    who.admin ? h("button", { type: "button", class: "quiet", "data-action": "end", "data-tier": one.tier ?? "" }, one.tier ? `End for ${one.tier}` : "End maintenance") : null,
  ));
  show($("steer"),
    windows.length ? h("ul", { class: "windows" }, windows) : h("p", { class: "muted" }, "Nothing is in maintenance."),
    who.admin ? h("button", { type: "button", class: "primary", "data-action": "maintain" }, "Begin maintenance …") : h("p", { class: "muted small" }, "An admin key may begin and end maintenance."),
    h("h3", {}, "Breaker of Groq"),
    breaker ? h("div", { class: "breaker" }, state(breaker.state), h("span", { class: "small" }, breaker.state === "closed" ? "Calls go through." : `${breaker.why ?? "too many calls went wrong"}.`), breaker.next_look_s ? h("span", { class: "muted small" }, `The next call probes it in ${span(breaker.next_look_s)}.`) : null) : h("p", { class: "muted small" }, "No gate is in use yet."),
  );
}

export function failures({ failures: found }) {
  if (!found) return;
  show($("failures"), found.length ? h("ul", { class: "list" }, found.map((job) => h("li", { "data-key": job.id },
    h("div", { class: "row" }, time(job.finished_at, { fine: true }), chip(job.reason ?? job.state, "bad"), h("span", { class: "muted small" }, name(job.model ?? "")), h("button", { type: "button", class: "link", "data-action": "job", "data-id": job.id, title: job.id }, idOf(job.id))),
    job.message ? h("div", { class: "small" }, job.message) : null,
    h("div", { class: "small way" }, h("b", {}, "Way out: "), job.way_out),
  ))) : empty("No job has failed."));
}

export function jobs({ jobs: found }) {
  if (!found) return;
  show($("jobs"), found.length ? h("table", { class: "cards" },
    h("thead", {}, h("tr", {}, ...["Job", "State", "Model", "Created"].map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, found.map((job) => h("tr", { "data-key": job.id },
      h("th", { scope: "row" }, h("button", { type: "button", class: "link", "data-action": "job", "data-id": job.id, title: job.id }, idOf(job.id))),
      h("td", { "data-label": "State" }, state(job.state)), h("td", { "data-label": "Model" }, name(job.model ?? "")), h("td", { "data-label": "Created" }, time(job.created_at, { fine: true })))))) : empty("No job yet:", 'vessel submit "Hello"'));
}
