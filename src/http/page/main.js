// Starts the page and joins its parts: what comes from the daemon goes to the mosaic, the lists and the figures; what is chosen
// here decides what is asked for.

import { Acquisitions, offer, received } from "./acquisitions.js";
import { Api, isForGood } from "./api.js";
import { Cells, STATE_MASK } from "./cells.js";
import { control } from "./controls.js";
import { $, atMostEvery, say, show, time } from "./dom.js";
import { Gauges } from "./gauges.js";
import { Live } from "./live.js";
import { Missing } from "./missing.js";
import { Mosaic } from "./mosaic.js";
import { Palette } from "./paint.js";
import { Summary } from "./summary.js";
import { Thumbnails } from "./thumbnails.js";
import { TilePanel } from "./tile.js";
import { Tokens } from "./token.js";

/** What depends on counts is shown at most this often; the mosaic itself at once. */
const LISTS_MS = 400;
const COMPLETENESS_MS = 10000;
const FILTERED_AGAIN_MS = 2000;
const SHAPE_AGAIN_MS = 4000;
const UNSEEN_MS = 60000;
const NOTHING = $("no-mosaic").textContent;

const palette = new Palette();
const api = new Api(new Tokens());
const gauges = new Gauges();
const panel = new TilePanel(api);
const thumbnails = new Thumbnails(api, () => mosaic.changed());
const mosaic = new Mosaic($("canvas"), palette, thumbnails, { moved: told, drawn: published });
const summary = new Summary(palette, (test) => mosaic.only(test));
const missing = new Missing((place) => { mosaic.move(place); open(place, true); });
const acquisitions = new Acquisitions(chosen);
const live = new Live(api, { opened: connected, event: happened, lost: disconnected });

let started = null; // When the daemon started: another one is another life of it.
let since = null; // When the connection was lost.
let pending = null; // Changes that came while the mosaic was being fetched.
let request = new AbortController();
let completeness = null;
let tick = null;
let shaped = null; // The acquisition whose images' shape is known.

function announce(text) {
  say($("live"), text);
}

// The connection.

function connected() {
  clearInterval(tick);
  $("link").dataset.tone = "good";
  say($("link"), "Live");
  document.body.classList.remove("stale");
  show($("banner"), false);
  if (since !== null) announce("Connected again.");
  since = null;
  refresh();
}

function disconnected(problem, pause) {
  if (problem.status === 404 && acquisitions.current !== null) return acquisitions.forget();
  if (since === null) announce("The connection to the daemon is lost.");
  since ??= new Date();
  document.body.classList.add("stale");
  document.title = "Not connected · tilecatcher";
  $("link").dataset.tone = "bad";
  show($("banner"), true);
  show($("held"), gauges.capture === "paused");
  const why = gauges.capture === "draining" ? "the daemon has stopped" : problem.message;
  const until = performance.now() + pause;
  const words = () => {
    const left = Math.max(0, Math.ceil((until - performance.now()) / 1000));
    say($("link"), "Not connected");
    say($("banner-text"), `Not connected: ${why}. What you see is of ${time(since)}. Trying again ${left > 0 ? `in ${left} s` : "now"}.`);
  };
  clearInterval(tick);
  tick = setInterval(words, 1000);
  words();
}

/** Everything again: at the beginning, after a pause, and when the stream has left something out. */
async function refresh() {
  thumbnails.outdate();
  const [status] = await Promise.all([
    api.json("/api/v1/status").catch(() => null),
    fetchMosaic(),
  ]);
  if (status) take(status);
  if (mosaic.cells && panel.place) panel.open(mosaic.cells, panel.place);
}

function happened(name, data) {
  if (name === "status") take(data);
  else if (name === "tiles" && data.acquisition === acquisitions.current) change(data.cells);
  else if (name === "lagged") refresh();
}

function take(status) {
  if (status.started) {
    if (started !== null && started !== status.started) {
      const words = `The daemon was started again at ${time(status.started)}.`;
      announce(words);
      say($("restarted-text"), words);
      show($("restarted"), true);
      fetchMosaic();
    }
    started = status.started;
  }
  const held = gauges.held;
  gauges.take(status);
  if (gauges.held !== held) announce(gauges.held || "Tiles are taken again.");
  if (status.acquisitions) acquisitions.take(status.acquisitions);
  if (acquisitions.current === null) show($("no-mosaic"), true);
  choices();
}

// The mosaic.

function chosen(id) {
  request.abort();
  pending = null;
  panel.close();
  summary.reset();
  completeness = null;
  for (const choice of ["section", "camera"]) $(choice).value = "";
  mosaic.filter = "";
  mosaic.set(null, false);
  mosaic.shape({ width: 1, height: 1 });
  shaped = null;
  say($("no-mosaic"), NOTHING);
  show($("no-mosaic"), id === null);
  lists();
  live.follow(id); // Fetches the mosaic once the events come.
}

function filtered() {
  const query = new URLSearchParams();
  for (const choice of ["section", "camera"]) if ($(choice).value !== "") query.set(choice, $(choice).value);
  mosaic.filter = String(query);
  thumbnails.clear();
  fetchMosaic();
}

async function fetchMosaic() {
  request.abort();
  request = new AbortController();
  const { signal } = request;
  const [id, filter] = [acquisitions.current, mosaic.filter];
  if (id === null) return;
  pending = [];
  try {
    const query = filter === "" ? "" : `?${filter}`;
    const answer = await api.json(`/api/v1/acquisitions/${id}/mosaic${query}`, { signal, cache: "no-store" });
    if (signal.aborted) return;
    const kept = pending;
    pending = null;
    mosaic.set(new Cells(answer), true);
    say($("no-mosaic"), NOTHING);
    show($("no-mosaic"), mosaic.cells.bytes.length === 0);
    change(kept);
    lists();
    count();
  } catch (problem) {
    if (signal.aborted) return;
    pending = null;
    if (problem.status === 404 && !problem.isNoRoute) return acquisitions.forget(); // It was deleted.
    say($("no-mosaic"), `No mosaic: ${problem.message}`);
    show($("no-mosaic"), mosaic.cells === null);
    // What changed meanwhile would be missed. Where the connection is lost, all of it is fetched again with the next one.
    if (since === null && !isForGood(problem)) fetchAgain();
  }
}

const fetchAgain = atMostEvery(FILTERED_AGAIN_MS, fetchMosaic);

/** Changes of places: [column, row, byte]. */
function change(cells) {
  if (pending !== null) return void pending.push(...cells);
  if (!mosaic.cells || cells.length === 0) return;
  const changed = [];
  let unknown = false;
  for (const [col, row, byte] of cells) {
    const before = mosaic.cells.at(col, row);
    // Whether a place belongs to a chosen section or camera only the daemon can tell.
    const isKnown = (byte & STATE_MASK) < mosaic.cells.legend.length && (mosaic.filter === "" || before !== 0);
    const index = isKnown ? mosaic.cells.put(col, row, byte) : -1;
    if (index >= 0) changed.push(index);
    else {
      unknown = true;
      thumbnails.touch(col, row);
    }
    if (index >= 0 && panel.isAt({ col, row })) panel.open(mosaic.cells, { col, row });
  }
  if (changed.length > 0) mosaic.touch(changed);
  if (unknown) fetchAgain();
  lists();
}

const lists = atMostEvery(LISTS_MS, () => {
  summary.show(mosaic.cells);
  summary.table(mosaic.cells, completeness, sectionNames());
  missing.show(mosaic.cells);
  told(mosaic.cursor);
  learnShape();
  count();
});

/** Counts of sections and cameras come from the daemon: only it knows them. */
const count = atMostEvery(COMPLETENESS_MS, async () => {
  const id = acquisitions.current;
  if (id === null) return;
  const found = await api.json(`/service/v1/acquisition/${id}/completeness?length=1`).catch(() => null);
  if (id !== acquisitions.current || found === null) return;
  completeness = found;
  summary.table(mosaic.cells, completeness, sectionNames());
});

function sectionNames() {
  const sections = acquisitions.get()?.sections ?? [];
  return new Map(sections.map(({ section, name }) => [String(section), name && name !== String(section) ? `${section} (${name})` : String(section)]));
}

function choices() {
  const [one, id] = [acquisitions.get(), acquisitions.current];
  offer("section", [...sectionNames()], $("section").value);
  offer("camera", (one?.cameras ?? []).map((camera) => [camera, String(camera)]), $("camera").value);
  // One that is chosen may be too old for the list.
  const name = id === null ? "Mosaic" : `Mosaic of ${id}`;
  document.title = [one ? `${id}: ${received(one)}` : id, "tilecatcher"].filter((part) => part !== null).join(" · ");
  say($("mosaic-title"), mosaic.cells ? `${name}, ${mosaic.cells.cols} × ${mosaic.cells.rows}` : name);
}

/** Says what is at the cursor. */
function told({ col, row }) {
  if (mosaic.cells) say($("cursor"), `Column ${col}, row ${row}: ${mosaic.cells.words(mosaic.cells.at(col, row))}`);
}

/** Where the mosaic lies, for whoever looks from outside: left, top and size of a place. */
function published() {
  $("canvas").dataset.view = [mosaic.x, mosaic.y, mosaic.scale].map((value) => value.toFixed(3)).join(" ");
}

async function open(place, moveFocus) {
  if (moveFocus) $("tile").focus();
  if (mosaic.cells) await panel.open(mosaic.cells, place);
}

/** Places as large as their images are, by the image of the tile at the cursor. */
async function native() {
  const { col, row } = mosaic.cursor;
  if (!mosaic.cells.isShowable(mosaic.cells.at(col, row))) return;
  const size = await thumbnails.measure(mosaic.url(`tile/${col}/${row}/image`)).catch(() => null);
  if (size === null) return;
  mosaic.shape(size);
  mosaic.zoomTo(size.width / mosaic.ratio);
}

/** Places get the shape of their images as soon as there is one. */
async function learnShape() {
  const { cells } = mosaic;
  if (!cells || shaped === cells.acquisition) return;
  const place = cells.first((byte) => cells.isShowable(byte));
  if (place === null) return;
  shaped = cells.acquisition;
  const isShown = () => mosaic.cells?.acquisition === cells.acquisition;
  try {
    const size = await thumbnails.measure(mosaic.url(`tile/${place.col}/${place.row}/image`, new URLSearchParams({ size: 256 })));
    if (isShown()) mosaic.shape(size);
  } catch (problem) {
    if (isForGood(problem) || !isShown()) return;
    setTimeout(() => { if (isShown()) shaped = null; lists(); }, SHAPE_AGAIN_MS);
  }
}

control($("canvas"), mosaic, { open, native, help: () => $("help").showModal() });
$("help-open").addEventListener("click", () => $("help").showModal());
$("help-close").addEventListener("click", () => $("help").close());
$("retry").addEventListener("click", () => live.retry());
$("restarted-close").addEventListener("click", () => show($("restarted"), false));
$("tile").addEventListener("keydown", (event) => { if (event.key === "Escape") $("canvas").focus(); });
for (const choice of ["section", "camera"]) $(choice).addEventListener("change", filtered);
// A browser has six connections for one daemon, all its tabs together, and a daemon 64 streams: who is not looked at needs none.
let unseen = null;
function seen() {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(rest, UNSEEN_MS);
  else live.resume();
}
function rest() {
  live.pauseNow();
  clearInterval(tick);
  // A tab's title must not go on to say how far it was.
  document.title = "tilecatcher";
}
document.addEventListener("visibilitychange", seen);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  mosaic.recolour();
  summary.reset();
  summary.show(mosaic.cells);
});

/** The acquisition is known before the events are asked for, or they would be asked for twice. */
async function start() {
  const status = await api.json("/api/v1/status").catch(() => null);
  if (status) take(status);
  if (acquisitions.current === null) live.follow(null);
  if (document.hidden) seen();
}
start();
