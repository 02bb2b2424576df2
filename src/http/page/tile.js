// One place in the side panel: its picture, its tiles' facts, the way to the content, its life. Every part is asked for by
// itself, so that one that fails takes none of the others with it.

import { $, atMostEvery, bytes, el, facts, say, time } from "./dom.js";
import { tell } from "./life.js";

const PREVIEW = 512;
const BUSY_MS = 1500;
/** The journal is read again at most this often while a place changes. */
const TELL_AGAIN_MS = 3000;

export class TilePanel {
  constructor(api) {
    this.api = api;
    [this.place, this.parts] = [null, null];
    this.asked = new AbortController();
    this.tellAgain = atMostEvery(TELL_AGAIN_MS, () => { if (this.parts?.isTold) this.#tell(); });
  }

  /** True when it shows this place. */
  isAt(place) {
    return this.place !== null && this.place.col === place.col && this.place.row === place.row;
  }

  close() {
    this.asked.abort();
    [this.place, this.parts] = [null, null];
    say($("tile-title"), "Tile");
    $("tile-body").replaceChildren(el("p", { className: "empty" }, "Choose a tile in the mosaic."));
  }

  /** Shows a place of these cells. Of the place that is shown already, each part stays until there is a newer one. */
  async open(cells, place) {
    this.asked.abort();
    this.asked = new AbortController();
    const { signal } = this.asked;
    const acquisition = `/api/v1/acquisitions/${cells.acquisition}`;
    if (!this.isAt(place)) this.#lay(acquisition, place);
    else if (this.parts.isTold) this.tellAgain();
    const { parts } = this;
    const byte = cells.at(place.col, place.row);
    say(parts.state, cells.words(byte));
    if (!cells.isStored(byte)) return [parts.picture, parts.tiles].forEach((part) => part.replaceChildren());
    const picture = `${acquisition}/tile/${place.col}/${place.row}/image?size=${PREVIEW}`;
    const jobs = [this.#picture(parts.picture, picture, signal), this.#tiles(parts.tiles, acquisition, place, signal)];
    await Promise.all(jobs.map((job) => job.catch((problem) => {
      if (!signal.aborted) parts.tiles.replaceChildren(el("p", { className: "problem" }, problem.message));
    })));
  }

  #lay(acquisition, { col, row }) {
    this.place = { col, row };
    say($("tile-title"), `Tile ${col}, ${row}`);
    const [button, status] = [el("button", { type: "button", id: "life" }, "What happened here"), el("p", { role: "status" })];
    button.addEventListener("click", () => this.#tell());
    this.parts = {
      state: el("p", { className: "state-line" }), picture: el("div"), tiles: el("div"), life: el("div", {}, button, status),
      button, status, head: el("h3", { tabIndex: -1 }, "What happened here"), told: el("div", { className: "life" }),
      url: `${acquisition}/places/${col}/${row}`, isTold: false,
    };
    $("tile-body").replaceChildren(this.parts.state, this.parts.picture, this.parts.tiles, this.parts.life);
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
    if (signal.aborted) return;
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
  async #tell() {
    const [{ parts }, { signal }] = [this, this.asked];
    [parts.isTold, parts.button.disabled] = [true, true];
    say(parts.status, "Reading the journal …");
    try {
      parts.told.replaceChildren(...tell(await this.api.json(parts.url, { signal })));
      if (!parts.button.isConnected) return;
      parts.life.replaceChildren(parts.head, parts.told);
      // The button that had the focus is gone, and what it was pressed for may lie below what is in view.
      parts.head.focus({ preventScroll: true });
      parts.life.scrollIntoView({ block: "nearest" });
    } catch (problem) {
      if (signal.aborted) return;
      [parts.isTold, parts.button.disabled] = [!parts.button.isConnected, false];
      say(parts.status, problem.isNoRoute ? "This daemon does not tell." : problem.message);
    }
  }
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
