// One place in the side panel: its picture, its tiles' facts, the way to the content, its life. Every part is asked for by
// itself, so that one that fails takes none of the others with it.

import { $, bytes, el, facts, say, time } from "./dom.js";

const PREVIEW = 512;
const BUSY_MS = 1500;

export class TilePanel {
  constructor(api) {
    this.api = api;
    this.place = null;
    this.asked = new AbortController();
  }

  /** True when it shows this place. */
  isAt(place) {
    return this.place !== null && this.place.col === place.col && this.place.row === place.row;
  }

  close() {
    this.asked.abort();
    this.place = null;
    say($("tile-title"), "Tile");
    $("tile-body").replaceChildren(el("p", { className: "empty" }, "Choose a tile in the mosaic."));
  }

  /** Shows a place of these cells. */
  async open(cells, place) {
    this.asked.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    this.place = place;
    const byte = cells.at(place.col, place.row);
    say($("tile-title"), `Tile ${place.col}, ${place.row}`);
    const parts = { state: el("p", { className: "state-line" }, cells.words(byte)), picture: el("div"), tiles: el("div"), life: el("div") };
    $("tile-body").replaceChildren(parts.state, parts.picture, parts.tiles, parts.life);
    const acquisition = `/api/v1/acquisitions/${cells.acquisition}`;
    this.#life(parts.life, acquisition, place, signal);
    if (!cells.isStored(byte)) return;
    const picture = `${acquisition}/tile/${place.col}/${place.row}/image?size=${PREVIEW}`;
    const jobs = [this.#picture(parts.picture, picture, signal), this.#tiles(parts.tiles, acquisition, place, signal)];
    await Promise.all(jobs.map((job) => job.catch((problem) => {
      if (!signal.aborted) parts.tiles.append(el("p", { className: "problem" }, problem.message));
    })));
  }

  async #picture(box, url, signal) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(await this.api.blob(url, { signal }));
    } catch (problem) {
      if (signal.aborted || problem.isNoRoute) return;
      box.replaceChildren(el("p", { className: "problem", id: "tile-problem" }, `No picture: ${problem.message}`));
      // The daemon has more important things to do.
      if (problem.status === 503) setTimeout(() => signal.aborted || this.#picture(box, url, signal), BUSY_MS);
      return;
    }
    const canvas = el("canvas", { className: "preview", width: bitmap.width, height: bitmap.height, role: "img", "aria-label": "The tile's image" });
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
    box.replaceChildren(canvas);
  }

  async #tiles(box, acquisition, { col, row }, signal) {
    const page = await this.api.json(`${acquisition}/tiles?col=${col}&row=${row}&frame-type=all&length=50`, { signal });
    const stable = page.tiles.filter((tile) => tile.frame === undefined);
    const drift = page.tiles.length - stable.length;
    box.replaceChildren(...stable.map((tile) => this.#facts(tile)));
    if (drift > 0) box.append(el("p", { className: "quiet" }, drift === 1 ? "1 drift frame" : `${drift} drift frames`));
  }

  #facts(tile) {
    const list = el("dl", { className: "facts" });
    const [kind, sum] = (tile.checksum ?? "").split(":");
    facts(list, [
      ["Identifier", tile.id],
      ["Size", `${bytes(tile.size)} (${tile.size} bytes)`],
      [kind || "Checksum", sum && el("code", {}, sum)],
      ["Received", el("time", { dateTime: tile.received, title: tile.received }, time(tile.received))],
      ["Camera", tile.camera],
      ["Version", tile.version > 1 ? tile.version : null],
      ["Sections", (tile.rois ?? []).map((roi) => `${roi.roi}: ${roi.state}`).join(", ")],
      ...quality(tile.quality),
    ]);
    return el("div", {}, list, this.#download(tile));
  }

  /** A link where no token is needed; where one is, the content is fetched with it. */
  #download(tile) {
    const url = `/api/v1/contents/${tile.content_key}`;
    const name = `tile-${tile.id}.tif`;
    const link = el("a", { href: url, download: name, className: "download" }, "Content as it was sent");
    link.addEventListener("click", (event) => {
      if (this.api.tokens.current() === null) return;
      event.preventDefault();
      this.#save(url, name).catch((problem) => link.after(el("p", { className: "problem" }, problem.message)));
    });
    return el("p", {}, link);
  }

  async #save(url, name) {
    const file = URL.createObjectURL(await this.api.blob(url));
    el("a", { href: file, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(file), 60000);
  }

  /** What the journal says of the place; read when it is asked for, for it costs the daemon something. */
  #life(box, acquisition, { col, row }, signal) {
    const button = el("button", { type: "button", id: "life" }, "What happened here");
    const status = el("p", { role: "status" });
    button.addEventListener("click", async () => {
      button.disabled = true;
      say(status, "Reading the journal …");
      try {
        const life = await this.api.json(`${acquisition}/places/${col}/${row}`, { signal });
        box.replaceChildren(el("h3", {}, "What happened here"), el("p", {}, life.because), lifeList(life));
      } catch (problem) {
        if (!signal.aborted) say(status, problem.isNoRoute ? "This daemon does not tell." : problem.message);
      }
    });
    box.replaceChildren(button, status);
  }
}

/** Events of the journal and refusals that the daemon remembers, in the order of their times. */
function lifeList({ events = [], refusals = [], problems = [] }) {
  const refused = refusals.map(({ at, reason, peer }) => ({ at, words: `refused: ${reason}${peer ? `, from ${peer}` : ""}` }));
  const told = events.map((event) => ({ at: event.at, words: eventWords(event) }));
  const all = [...told, ...refused].sort((one, other) => one.at.localeCompare(other.at));
  const line = ({ at, words }) => el("li", {}, el("time", { dateTime: at, title: at }, time(at)), el("span", {}, words));
  return el("ol", { className: "log" }, all.map(line), problems.map((words) => el("li", { className: "problem" }, el("span", {}, words))));
}

function eventWords({ event, tile, version, size, roi, state, segment }) {
  const details = [roi && `section ${roi}`, state, tile && `tile ${tile}`, version > 1 && `version ${version}`,
    size && bytes(size), segment && `segment ${segment}`];
  return [event, details.filter(Boolean).join(", ")].filter(Boolean).join(": ");
}

function quality(figures) {
  if (!figures) return [];
  const digits = (number) => (typeof number === "number" ? Number(number.toPrecision(4)).toString() : null);
  return [
    ["Quality", figures.flags?.length > 0 ? figures.flags.join(", ") : null],
    ["Mean", digits(figures.mean)],
    ["Contrast", typeof figures.contrast === "number" ? `${digits(figures.contrast * 100)} % of the range` : null],
    ["Focus", digits(figures.focus)],
    ["Saturated", typeof figures.saturated === "number" ? `${digits(figures.saturated * 100)} %` : null],
  ];
}
