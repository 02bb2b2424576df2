// The mosaic in words: the legend with its counts, which can single out a kind of place, and the table for those who do not
// see the canvas.

import { received } from "./acquisitions.js";
import { $, count, differs, el, fill, table } from "./dom.js";
import { STATE_MASK } from "./cells.js";
import { MARKS, swatch } from "./paint.js";

/** None, missing, refused, received; what follows is of sections. */
const OWN_STATES = 4;

export class Summary {
  /** `only(test or null)`: single out the bytes that pass. */
  constructor(palette, only) {
    this.palette = palette;
    this.only = only;
    this.pressed = null;
  }

  show(cells) {
    const kinds = cells ? this.#kinds(cells) : [];
    fill($("legend"), kinds.map(({ key, label, number }) => ({ key, label, number, pressed: key === this.pressed })),
      ({ key }) => key, (kind) => this.#entry(cells, kinds.find(({ key }) => key === kind.key), kind));
  }

  /** Colours or another acquisition: all of it anew. */
  reset() {
    $("legend").dataset.shown = "";
    if (this.pressed !== null) this.only(null);
    this.pressed = null;
  }

  #kinds(cells) {
    const states = cells.legend.map((name, index) => ({ key: name, label: name === "none" ? "not expected" : name, byte: index,
      number: cells.counts[index], test: (byte) => (byte & STATE_MASK) === index }));
    const marks = MARKS.map(({ name, bit, label, test }) => ({ key: name, label, byte: bit | cells.legend.indexOf("received"),
      number: cells.marks[name], test }));
    // Tiles of sections are in states of their own: that none is "received" would say that none has come.
    const hasOthers = states.slice(OWN_STATES).some(({ number }) => number > 0);
    const always = hasOthers ? ["missing"] : ["received", "missing"];
    return [...states, ...marks].filter(({ key, number }) => key !== "none" && (number > 0 || always.includes(key)));
  }

  #entry(cells, kind, { label, number, pressed }) {
    const sample = el("canvas", { className: "swatch", "aria-hidden": "true" });
    swatch(sample, this.palette, cells, kind.byte);
    const button = el("button", { type: "button", "aria-pressed": String(pressed) }, sample, ` ${label} `, el("b", {}, count(number)));
    button.addEventListener("click", () => {
      this.pressed = pressed ? null : kind.key;
      this.only(pressed ? null : kind.test);
      this.show(cells);
    });
    return el("li", {}, button);
  }

  /** The table: states, then sections and cameras as far as the daemon counts them. */
  table(cells, completeness, names) {
    const box = $("summary");
    if (!cells) {
      if (differs(box, null)) box.replaceChildren(el("p", { className: "empty" }, "No places yet."));
      return;
    }
    const states = this.#kinds(cells).map(({ label, number }) => [label, count(number)]);
    const counts = (sums, name) => Object.entries(sums ?? {}).map(([key, sum]) => [name(key), received(sum), count(sum.missing)]);
    const sections = counts(completeness?.sections, (key) => names.get(key) ?? key);
    const cameras = counts(completeness?.cameras, (key) => (key === "-1" ? "not known yet" : key));
    if (!differs(box, { states, sections, cameras })) return;
    const head = (name) => [name, "Received", "Missing"];
    box.replaceChildren(table("Places by state", ["State", "Places"], states));
    if (sections.length > 0) box.append(table("Tiles by section", head("Section"), sections));
    if (cameras.length > 0) box.append(table("Tiles by camera", head("Camera"), cameras));
  }
}
