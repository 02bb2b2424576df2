// The daemon's state in figures: pills in the header, rates with their last two minutes, queues, disk, senders, warnings. What
// the daemon does not tell is left out.

import { $, bytes, count, differs, el, facts, fill, say, short, show, span, table, time } from "./dom.js";

const KEPT = 120;
const HEIGHT = 34;

/** What is drawn of the history: name, how a figure reads, where it is in an entry, the figure of now. */
const SERIES = [
  { id: "tiles", name: "Tiles", unit: "tiles/s", read: short, of: (entry) => entry.tiles, now: (now) => now.tiles_per_s },
  { id: "bytes", name: "Data", unit: "/s", read: bytes, of: (entry) => entry.bytes, now: (now) => now.bytes_per_s },
  { id: "p50", name: "Ack, 50 %", unit: "ms", read: short, of: (entry) => entry.ack_p50_ms, now: (now) => now.ack_p50_ms },
  { id: "p99", name: "Ack, 99 %", unit: "ms", read: short, of: (entry) => entry.ack_p99_ms, now: (now) => now.ack_p99_ms },
  { id: "refused", name: "Refused", unit: "tiles/s", read: short, of: (entry) => entry.refused, now: (now) => now.refused_per_s },
];
/** What is to be known while no tile is taken. */
const HELD = {
  paused: "Capture is paused: no tile is taken until an operator resumes it (tilecatcher admin resume). Senders wait.",
  draining: "The daemon is stopping: it takes no new tile, and stores what has begun.",
};
const TONES = { GREEN: "good", YELLOW: "warn", RED: "bad", running: "good", paused: "warn", draining: "warn" };

export class Gauges {
  constructor() {
    this.history = [];
    /** Whether tiles are taken, and in words that none is. */
    [this.capture, this.held] = [null, ""];
    this.sparks = new Map();
  }

  /** Takes a whole status, or one of the stream, whose newest second is its `sample`. */
  take(status) {
    if (status.history) this.history = status.history.slice(-KEPT);
    else if (status.sample) this.#append(status.sample);
    this.capture = status.capture;
    this.held = HELD[status.capture] ?? "";
    say($("held-text"), this.held);
    show($("held"), this.held !== "");
    pills(status);
    this.#rates(status.now ?? {});
    meters(status);
    senders(status.senders, status.senders_total);
    if (status.warnings) warnings(status.warnings);
  }

  #append(sample) {
    if (this.history.at(-1)?.at === sample.at) this.history.pop();
    this.history.push(sample);
    if (this.history.length > KEPT) this.history.shift();
  }

  #rates(now) {
    for (const series of SERIES) {
      const figure = series.now(now);
      const values = this.history.map(series.of);
      const known = figure !== undefined && figure !== null ? figure : values.findLast((value) => value !== undefined);
      if (known === undefined && values.length === 0) continue;
      if (!this.sparks.has(series.id)) this.sparks.set(series.id, new Spark(series));
      this.sparks.get(series.id).draw(known ?? null, values);
    }
  }
}

const SVG = "http://www.w3.org/2000/svg";
function svg(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** A figure with the line of its last minutes. */
class Spark {
  constructor(series) {
    this.series = series;
    this.figure = el("span", { className: "figure" });
    this.most = el("span", { className: "quiet most" });
    this.area = svg("path", { class: "area" });
    this.line = svg("polyline", { class: "line" });
    this.picture = svg("svg", { viewBox: `0 0 ${KEPT - 1} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    this.picture.append(this.area, this.line);
    const head = el("div", { className: "spark-head" }, el("span", { className: "name" }, series.name), this.figure);
    $("sparks").append(el("div", { className: "spark", id: `spark-${series.id}` }, head, this.picture, this.most));
  }

  draw(figure, values) {
    const { read, unit } = this.series;
    const words = (value) => (unit === "/s" ? `${read(value)}/s` : `${read(value)} ${unit}`);
    say(this.figure, figure === null ? "–" : words(figure));
    const most = Math.max(0, ...values.map((value) => value ?? 0));
    say(this.most, values.length > 1 ? `most ${words(most)}` : "");
    const at = (value, index) => {
      const x = KEPT - values.length + index;
      return `${x},${(HEIGHT - 1 - ((value ?? 0) / (most || 1)) * (HEIGHT - 3)).toFixed(1)}`;
    };
    const points = values.map(at);
    this.line.setAttribute("points", points.join(" "));
    const from = KEPT - values.length;
    this.area.setAttribute("d", points.length > 1 ? `M${from},${HEIGHT} L${points.join(" L")} L${KEPT - 1},${HEIGHT} Z` : "");
  }
}

function pill(id, text, tone) {
  const node = $(id);
  show(node, text !== null);
  if (text === null) return;
  say(node, text);
  node.dataset.tone = tone;
}

function pills(status) {
  say($("version"), status.version ?? "");
  const { capture, pressure, disk } = status;
  pill("capture", capture ? `Capture ${capture}` : null, TONES[capture] ?? "warn");
  // It counts as RED while no tile is taken, which is said beside it.
  pill("pressure", pressure && !(capture in HELD) ? `Pressure ${pressure.system}` : null, TONES[pressure?.system] ?? "warn");
  const fullSoon = disk && disk.full_in_s !== null && disk.full_in_s !== undefined && disk.full_in_s < 86400;
  const little = disk?.total_bytes > 0 && disk.free_bytes < disk.total_bytes * 0.05;
  const until = fullSoon ? `, full in ${span(disk.full_in_s)}` : "";
  const tone = little || (fullSoon && disk.full_in_s < 3600) ? "bad" : fullSoon ? "warn" : "good";
  pill("disk", disk ? `${bytes(disk.free_bytes)} free${until}` : null, tone);
  const damaged = status.damaged_records ?? 0;
  pill("damage", damaged > 0 ? `${count(damaged)} damaged` : null, "bad");
}

/** A bar that says how full something is. */
function meter(name, value, most, read) {
  const share = most > 0 ? Math.min(1, value / most) : 0;
  const bar = el("span", { className: "fill" });
  bar.style.width = `${(share * 100).toFixed(1)}%`;
  const tone = share > 0.9 ? "bad" : share > 0.7 ? "warn" : "good";
  return el("div", { className: "meter" },
    el("span", { className: "name" }, name), el("span", { className: "figure" }, `${read(value)} of ${read(most)}`),
    el("span", { className: "track", "data-tone": tone, "aria-hidden": "true" }, bar));
}

function meters(status) {
  const { queues, disk, pressure } = status;
  const bars = [];
  if (queues) {
    bars.push(meter("Tiles in lanes", queues.lane_tiles, queues.lane_limit_tiles, count));
    bars.push(meter("Tile buffers", queues.buffer_bytes, queues.buffer_limit_bytes, bytes));
  }
  if (disk?.total_bytes > 0) bars.push(meter("Disk used", disk.total_bytes - disk.free_bytes, disk.total_bytes, bytes));
  $("meters").replaceChildren(...bars);
  const { journal, index, mirror, scrub } = status;
  facts($("facts"), [
    ["Disk full in", disk && (disk.full_in_s === null || disk.full_in_s === undefined ? null : span(disk.full_in_s))],
    ["Pressure", pressure && `tiles ${pressure.tile_queue}, contents ${pressure.content_queue}`],
    ["Waiting for a buffer", queues?.buffer_waiters > 0 ? count(queues.buffer_waiters) : null],
    ["Acknowledged", status.ack_level],
    ["Journal", journal && `${bytes(journal.bytes)} in ${count(journal.segments)} segments`],
    ["Index behind", index?.lag_tiles > 0 ? `${count(index.lag_tiles)} tiles` : null],
    ["Index", index?.store_failed ? "its store has failed" : null],
    ["Mirror", mirror && mirror.phase.replace("_", " ")],
    ["Scrub", scrub && scrubbed(scrub)],
    ["Running for", status.uptime_s === undefined ? null : span(status.uptime_s)],
  ]);
}

function scrubbed({ progress, passes, findings }) {
  const found = findings > 0 ? `, ${count(findings)} findings` : "";
  const part = typeof progress === "number" ? `${Math.round(progress * 100)} % of pass ${count((passes ?? 0) + 1)}` : `${count(passes ?? 0)} passes`;
  return part + found;
}

function senders(list, total) {
  show($("senders"), list !== undefined);
  if (!list) return;
  // For a narrow table: a column that says nothing takes room from one that does.
  const isRefusing = list.some((sender) => sender.refused > 0);
  const head = ["Sender", "Acq", "Tiles", "Data", ...(isRefusing ? ["Refused"] : []), "Last tile"];
  const more = total > list.length ? ` (${count(total)}, first ${count(list.length)})` : ` (${count(list.length)})`;
  say($("senders-title"), `Senders${more}`);
  const name = ({ name, peer, port }) => `${name ?? peer}${port === "capture" ? "" : ` (${port})`}`;
  const row = (sender) => [name(sender), sender.acquisition ?? "–", count(sender.tiles ?? 0), bytes(sender.bytes ?? 0),
    ...(isRefusing ? [count(sender.refused ?? 0)] : []), sender.last_tile ? time(sender.last_tile) : "–"];
  const rows = list.map(row);
  if (!differs($("sender-table"), rows)) return;
  $("sender-table").replaceChildren(list.length > 0 ? table("Connected senders", head, rows)
    : el("p", { className: "empty" }, "No sender is connected."));
}

function warnings(list) {
  const newest = [...list].reverse();
  say($("warnings-title"), list.length > 0 ? `Warnings (${count(list.length)})` : "Warnings");
  const box = $("warning-list");
  if (newest.length === 0) return fill(box, ["none"], String, () => el("p", { className: "empty" }, "None since the daemon started."));
  fill(box, [newest], () => "warnings", () => el("ol", { className: "log" }, newest.map((warning) => el("li", {},
    el("span", { className: "level", "data-tone": /error/i.test(warning.level) ? "bad" : "warn" }, warning.level.toLowerCase()),
    el("time", { dateTime: warning.at }, time(warning.at)), el("span", {}, warning.message)))));
}
