// Colours and marks of places: one bitmap with a pixel for each place, and shapes that tell states apart without colour where
// places are large enough. Colours come from the style sheet, so dark and light need nothing here.

import { DAMAGED, FLAGGED, STATE_MASK, UNDECODABLE, isFlagged } from "./cells.js";

/** From this size, CSS pixels, places show shapes as well. */
export const SHAPES_FROM = 7;
const KNOWN = ["none", "missing", "refused", "received", "CREATE", "READY", "IN_PROGRESS", "COMPLETE"];
const OTHERS = 4;
/** Marks in the order in which they go before one another, with their bit and name. */
export const MARKS = [
  { name: "damaged", bit: DAMAGED, label: "damaged", test: (byte) => (byte & DAMAGED) !== 0 },
  { name: "undecodable", bit: UNDECODABLE, label: "can not be decoded", test: (byte) => (byte & UNDECODABLE) !== 0 },
  { name: "flagged", bit: FLAGGED, label: "quality flag", test: isFlagged },
];

export class Palette {
  constructor() {
    this.read();
  }

  /** Takes the colours from the style sheet again. */
  read() {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    this.states = Object.fromEntries(KNOWN.map((name) => [name, value(`--cell-${name.toLowerCase().replace("_", "-")}`)]));
    this.others = Array.from({ length: OTHERS }, (_, index) => value(`--cell-other-${index + 1}`));
    this.marks = Object.fromEntries(MARKS.map(({ name }) => [name, value(`--mark-${name}`)]));
    for (const name of ["stage", "ink", "ruler", "cursor", "cursor-back", "accent"]) this[name] = value(`--${name}`);
  }

  state(name, index) {
    return this.states[name] ?? this.others[index % OTHERS];
  }

  /** The colour of a place's byte. */
  of(byte, legend) {
    const mark = MARKS.find(({ bit }) => byte & bit);
    const index = byte & STATE_MASK;
    return mark ? this.marks[mark.name] : this.state(legend[index] ?? "", index);
  }
}

function rgb(color) {
  const number = Number.parseInt(color.slice(1), 16);
  return [number >> 16, (number >> 8) & 255, number & 255];
}

/** A pixel for each place. */
export class Bitmap {
  constructor(cells, palette, only) {
    this.cells = cells;
    this.canvas = new OffscreenCanvas(Math.max(1, cells.cols), Math.max(1, cells.rows));
    this.context = this.canvas.getContext("2d");
    this.image = this.context.createImageData(this.canvas.width, this.canvas.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.colour(palette, only);
  }

  /** Colours anew; `only` tells which bytes keep their colour while all others fade. */
  colour(palette, only = this.only) {
    this.only = only;
    const back = rgb(palette.stage);
    const mix = (color, faded) => color.map((part, index) => Math.round(faded ? back[index] * 0.86 + part * 0.14 : part));
    this.pixelOf = Uint32Array.from({ length: 256 }, (_, byte) => {
      const [red, green, blue] = mix(rgb(palette.of(byte, this.cells.legend)), only !== null && !only(byte));
      return (255 << 24) | (blue << 16) | (green << 8) | red;
    });
    this.paint();
  }

  paint() {
    const { bytes } = this.cells;
    for (let index = 0; index < bytes.length; index += 1) this.pixels[index] = this.pixelOf[bytes[index]];
    this.context.putImageData(this.image, 0, 0);
  }

  /** Paints the places at these indices. */
  touch(indices) {
    if (indices.length > 2000) return this.paint();
    const { cols, bytes } = this.cells;
    for (const index of indices) {
      this.pixels[index] = this.pixelOf[bytes[index]];
      this.context.putImageData(this.image, 0, 0, index % cols, Math.floor(index / cols), 1, 1);
    }
  }
}

/** The shapes of a kind of place, as a path in a box at (x, y). */
const SHAPES = {
  missing(path, x, y, wide, high) {
    const edge = Math.max(1, Math.min(4, Math.min(wide, high) * 0.14));
    path.rect(x + edge, y + edge, wide - 2 * edge, high - 2 * edge);
  },
  refused(path, x, y, wide, high) {
    path.moveTo(x + wide * 0.25, y + high * 0.25); path.lineTo(x + wide * 0.75, y + high * 0.75);
    path.moveTo(x + wide * 0.75, y + high * 0.25); path.lineTo(x + wide * 0.25, y + high * 0.75);
  },
  damaged(path, x, y, wide, high) {
    path.moveTo(x + wide * 0.5, y + high * 0.18); path.lineTo(x + wide * 0.5, y + high * 0.6);
    path.moveTo(x + wide * 0.5, y + high * 0.74); path.lineTo(x + wide * 0.5, y + high * 0.84);
  },
  undecodable(path, x, y, wide, high) {
    path.moveTo(x + wide * 0.2, y + high * 0.8); path.lineTo(x + wide * 0.8, y + high * 0.2);
  },
  flagged(path, x, y, wide, high) {
    path.moveTo(x + wide * 0.5, y); path.lineTo(x + wide, y); path.lineTo(x + wide, y + high * 0.5); path.closePath();
  },
};
const FILLED = new Set(["missing", "flagged"]);

/** Collects shapes of many places and draws each kind at once. */
export class Shapes {
  constructor() {
    this.paths = new Map();
  }

  add(cells, byte, x, y, wide, high) {
    const mark = MARKS.find(({ bit }) => byte & bit);
    const kind = mark ? mark.name : cells.state(byte);
    if (!(kind in SHAPES)) return;
    if (!this.paths.has(kind)) this.paths.set(kind, new Path2D());
    SHAPES[kind](this.paths.get(kind), x, y, wide, high);
  }

  draw(context, palette, size) {
    for (const [kind, path] of this.paths) {
      const color = kind === "missing" ? palette.stage : palette.ink;
      [context.fillStyle, context.strokeStyle] = [color, color];
      context.lineWidth = Math.max(1, Math.min(6, size * 0.1));
      if (FILLED.has(kind)) context.fill(path);
      else context.stroke(path);
    }
  }
}

/** A sample of a kind of place, for the legend. */
export function swatch(canvas, palette, cells, byte) {
  const ratio = window.devicePixelRatio || 1;
  const side = 14;
  [canvas.width, canvas.height] = [side * ratio, side * ratio];
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = palette.of(byte, cells.legend);
  context.fillRect(0, 0, side, side);
  const shapes = new Shapes();
  shapes.add(cells, byte, 0, 0, side, side);
  shapes.draw(context, palette, side);
}
