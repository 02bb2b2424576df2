// What happened at a place, in the words of `tilecatcher why`: what it came to, what the journal says, refusals that the daemon
// remembers, and how it stands in its sections. Must never ask for anything.

import { el, time } from "./dom.js";

/** Nodes that tell a life as the daemon gives it. */
export function tell({ because, events = [], refusals = [], rois = [], problems = [] }) {
  const now = rois.map(({ state, roi, section }) => el("p", {}, `now ${state} in ROI ${roi} (section ${section})`));
  const unread = problems.map((problem) => el("p", { className: "problem" }, `could not be read: ${problem}`));
  return [el("p", {}, because), el("ol", { className: "log" }, inOrder(events, refusals).map(line)), ...now, ...unread];
}

/** Events stay in the journal's order, even where a clock was put back; refusals go between them by their times. */
function inOrder(events, refusals) {
  const all = events.map((event) => ({ at: event.at, ...words(event) }));
  for (const { at, reason, peer } of refusals) {
    const behind = all.findIndex((other) => Date.parse(other.at) > Date.parse(at));
    all.splice(behind < 0 ? all.length : behind, 0, { at, said: `refused: ${reason}, from ${peer ?? "unknown"}` });
  }
  return all;
}

function line({ at, said, details }) {
  const more = details && el("span", { className: "quiet small" }, details);
  return el("li", {}, el("time", { dateTime: at, title: at }, time(at)), el("span", {}, said), more);
}

/** What is said of an event, and what only those want who look for the bytes. */
function words(event) {
  const roi = event.roi ? `ROI ${event.roi} (section ${event.section})` : "";
  switch (event.event) {
    case "started": return { said: "acquisition started" };
    case "ended": return { said: "acquisition ended" };
    case "deleted": return { said: "acquisition deleted: what was stored before is gone" };
    case "expected": return { said: roi ? `expected by ${roi}` : "expected" };
    case "judged": return { said: `image of version ${event.version} judged: ${event.quality_flags?.join(", ") || "good"}` };
    case "state": return { said: stateWords(event, roi) };
    case "stored": return storedWords(event);
    default: return { said: event.event }; // Of a newer daemon.
  }
}

function stateWords({ state, lent_until: until }, roi) {
  return `state ${state}${roi && ` in ${roi}`}${until ? `, lent until ${until}` : ""}`;
}

function storedWords({ tile, version, camera, from, damaged, size, checksum, crc32, segment, offset }) {
  const sender = from ? `, from ${from}` : "";
  return {
    said: `stored as tile ${tile}, version ${version}, camera ${camera}${sender}${damaged ? "; THE STORED BYTES ARE DAMAGED" : ""}`,
    details: `${size} bytes, checksum ${checksum}, CRC-32 ${crc32}; segment ${segment} at ${offset}`,
  };
}
