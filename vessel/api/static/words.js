// How numbers, money, times and names are written.
import { h } from "./build.js";

const whole = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => whole.format(Math.round(value));
export const short = (value) => (Math.abs(value) < 10000 ? count(value) : compact.format(value));
export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** Money with as many digits as it takes to see it. */
export function usd(value) {
  if (!value) return "$0.00";
  const digits = Math.abs(value) >= 1 ? 2 : Math.min(8, Math.max(2, 2 - Math.floor(Math.log10(Math.abs(value)))));
  return `$${value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: digits })}`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds > 0 && seconds < 1) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} d`;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

export const utc = (iso) => `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC`;

/** A moment in the viewer's zone, with UTC in its title. `fine` shows seconds. */
export function time(iso, { fine = false, now = Date.now() } = {}) {
  if (!iso) return "";
  const at = new Date(iso);
  const today = at.toDateString() === new Date(now).toDateString();
  const text = (fine ? clock : minute).format(at);
  return h("time", { datetime: iso, title: utc(iso) }, today ? text : `${day.format(at)}, ${text}`);
}

export const clockOf = (iso) => clock.format(new Date(iso));

/** An id or name that may be long: cut by the page's width, whole in its title. */
export const name = (text, cls = "") => h("span", { class: `name ${cls}`, title: text }, text);
export const idOf = (id) => (id.length > 18 ? `${id.slice(0, 12)}…${id.slice(-4)}` : id);
export const chip = (text, tone = "") => h("span", { class: `chip ${tone}` }, text);
export const tones = { succeeded: "good", completed: "good", healthy: "good", closed: "good", failed: "bad", expired: "bad", down: "bad", open: "bad", degraded: "warn", parked: "warn", ramp: "warn", cancelling: "warn", running: "busy", in_progress: "busy", finalizing: "busy", validating: "busy" };
export const state = (value) => chip(value.replaceAll("_", " "), tones[value] ?? "");
export const empty = (text, command) => h("p", { class: "empty muted" }, text, command && [" ", h("code", {}, command)]);

export const LIMITS = {
  rpm: ["RPM", "requests per minute"], tpm: ["TPM", "tokens per minute"], itpm: ["ITPM", "input tokens per minute"],
  otpm: ["OTPM", "output tokens per minute"], rpd: ["RPD", "requests per day"], tpd: ["TPD", "tokens per day"],
};
