// Elements and words: makes nodes without markup in strings, and writes numbers, sizes and times as people read them.

export const $ = (id) => document.getElementById(id);

/** An element with properties and children; texts stay texts, so nothing that a sender named becomes markup. */
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name in node && !name.includes("-") && name !== "role") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Sets a text only when it differs: screen readers and layout are left alone otherwise. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Shows or hides. */
export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}

/** True when a node shows something else so far; notes what it is to show. */
export function differs(node, shown) {
  const signature = JSON.stringify(shown);
  if (node.dataset.shown === signature) return false;
  node.dataset.shown = signature;
  return true;
}

/** Replaces the rows of a list only when what they show has changed, and keeps the focus on the row that had it. */
export function fill(list, items, key, make) {
  if (!differs(list, items)) return;
  const focused = list.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
  list.replaceChildren(...items.map((item) => {
    const node = make(item);
    node.dataset.key = key(item);
    return node;
  }));
  if (focused === null || focused === undefined) return;
  const again = [...list.children].find((node) => node.dataset.key === focused);
  (again?.querySelector("button, a") ?? again)?.focus({ preventScroll: true });
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (number) => whole.format(number);

/** Three digits, as a rate or a time is read. */
export function short(number) {
  const digits = number === 0 || number >= 100 ? 0 : number >= 10 ? 1 : 2;
  return new Intl.NumberFormat("en", { maximumFractionDigits: digits }).format(number);
}

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];
export function bytes(number) {
  const step = number < 1000 ? 0 : Math.min(5, Math.floor(Math.log10(number) / 3));
  return `${short(number / 1000 ** step)} ${UNITS[step]}`;
}

export function span(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${short(seconds / 3600)} h`;
  return `${count(seconds / 86400)} days`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { year: "numeric", month: "short", day: "numeric" });
/** A time of today as a clock shows it, another with its day. */
export function time(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return "–";
  const today = new Date().toDateString() === at.toDateString();
  return today ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
}

/** A table with its caption and head; cells may be nodes. */
export function table(caption, head, rows) {
  const cell = (value, index) => (index === 0 ? el("th", { scope: "row" }, value) : el("td", {}, value));
  return el("table", {},
    el("caption", { className: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))));
}

/** Terms and what is to be said of them; those of which nothing is known are left out. */
export function facts(list, pairs) {
  const known = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "");
  list.replaceChildren(...known.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

/** Calls at most once in `ms`, the last time for certain. */
export function atMostEvery(ms, work) {
  let timer = null;
  let last = -Infinity;
  return () => {
    if (timer !== null) return;
    const run = () => { timer = null; last = performance.now(); work(); };
    timer = setTimeout(run, Math.max(0, last + ms - performance.now()));
  };
}
