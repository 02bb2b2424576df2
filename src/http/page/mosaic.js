// The mosaic on its canvas: where it lies and how large, the cursor, and when it is drawn: only when something has changed.
// What is drawn is in picture.js, keys and pointers are in controls.js.

import { GUTTER } from "./margins.js";
import { Bitmap } from "./paint.js";
import { draw } from "./picture.js";

const SCALE_MAX = 8192;
const FIT_MAX = 220;

export class Mosaic {
  /** `on`: moved(cursor), drawn(). */
  constructor(canvas, palette, thumbnails, on) {
    Object.assign(this, { canvas, palette, thumbnails, on });
    this.context = canvas.getContext("2d");
    [this.cells, this.bitmap, this.latest] = [null, null, null];
    [this.width, this.height, this.ratio] = [0, 0, 1];
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.aspect = 1;
    this.fitted = true;
    this.images = "auto";
    this.follows = false;
    this.filter = "";
    this.single = null;
    this.cursor = { col: 0, row: 0 };
    this.isPlaced = false; // True once somebody put the cursor somewhere.
    this.waiting = false;
    new ResizeObserver(() => this.#measure()).observe(canvas);
  }

  /** Takes another mosaic; `stays`: it is the same one, fetched again. */
  set(cells, stays) {
    const same = stays && this.cells && cells && sameShape(this.cells, cells);
    this.cells = cells;
    this.bitmap = cells && new Bitmap(cells, this.palette, this.single);
    if (!cells) return this.changed();
    if (!same) {
      this.thumbnails.clear();
      this.latest = null;
      this.cursor = { col: cells.firstCol, row: cells.firstRow };
      this.isPlaced = false;
      this.fit();
    }
    this.changed();
  }

  /** Cells have come: their indices. */
  touch(indices) {
    this.bitmap.touch(indices);
    for (const index of indices) {
      const place = this.cells.place(index);
      this.thumbnails.touch(place.col, place.row);
      if (this.cells.isStored(this.cells.bytes[index])) this.latest = place;
    }
    if (this.follows && this.latest) this.reveal(this.latest, true);
    this.changed();
  }

  /** Asks for a frame. */
  changed() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      draw(this);
      this.on.drawn();
    });
  }

  recolour() {
    this.palette.read();
    this.bitmap?.colour(this.palette);
    this.changed();
  }

  /** Fades what does not fit, or nothing. */
  only(test) {
    this.single = test;
    this.bitmap?.colour(this.palette, test);
    this.changed();
  }

  // Where it lies: places are `scale` wide and `high` high, as their images are.

  get high() {
    return this.scale * this.aspect;
  }

  /** Places get the shape of their images. */
  shape({ width, height }) {
    if (this.aspect === height / width) return;
    this.aspect = height / width;
    if (this.fitted) this.fit();
    this.changed();
  }

  fit() {
    if (!this.cells) return;
    const [wide, high] = [this.width - GUTTER.left - 6, this.height - GUTTER.top - 6];
    const { cols, rows } = this.cells;
    this.scale = Math.max(0.02, Math.min(FIT_MAX, wide / Math.max(1, cols), high / Math.max(1, rows) / this.aspect));
    this.x = GUTTER.left + Math.max(0, (wide - cols * this.scale) / 2);
    this.y = GUTTER.top;
    this.fitted = true;
    this.changed();
  }

  /** Zooms by a factor around a point of the canvas. */
  zoom(factor, at = this.#centre(this.cursor)) {
    const scale = Math.min(SCALE_MAX, Math.max(0.05, this.scale * factor));
    const by = scale / this.scale;
    this.x = at.x - (at.x - this.x) * by;
    this.y = at.y - (at.y - this.y) * by;
    this.scale = scale;
    this.fitted = false;
    this.#keepInSight();
    this.changed();
  }

  /** Zooms at the cursor; at the middle where it is not in view, or nobody has put it anywhere. */
  zoomHere(factor) {
    const at = this.#centre(this.cursor);
    const seen = this.isPlaced && at.x > GUTTER.left && at.y > GUTTER.top && at.x < this.width && at.y < this.height;
    this.zoom(factor, seen ? at : { x: this.width / 2, y: this.height / 2 });
  }

  /** Places of this size, the one at the cursor with its corner in view. */
  zoomTo(scale) {
    this.scale = Math.min(SCALE_MAX, scale);
    const { x, y } = this.pointOf(this.cursor);
    this.x = Math.round(this.x + GUTTER.left + 2 - x);
    this.y = Math.round(this.y + GUTTER.top + 2 - y);
    this.fitted = false;
    this.changed();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.#keepInSight();
    this.changed();
  }

  move(place) {
    const { firstCol, firstRow, cols, rows } = this.cells;
    const within = (value, first, length) => Math.max(first, Math.min(first + length - 1, value));
    this.cursor = { col: within(place.col, firstCol, cols), row: within(place.row, firstRow, rows) };
    this.isPlaced = true;
    this.reveal(this.cursor, false);
    this.on.moved(this.cursor);
    this.changed();
  }

  /** Brings a place into view; `middle`: into the middle where it was not seen. */
  reveal(place, middle) {
    const { x, y } = this.pointOf(place);
    const shift = (at, side, low, high) => {
      if (at >= low && at + side <= high) return 0;
      if (middle || side > high - low) return (low + high - side) / 2 - at;
      return at < low ? low - at : high - at - side;
    };
    const [dx, dy] = [shift(x, this.scale, GUTTER.left, this.width), shift(y, this.high, GUTTER.top, this.height)];
    if (dx !== 0 || dy !== 0) this.pan(dx, dy);
  }

  /** The place under a point of the canvas, or null. */
  placeAt(point) {
    if (!this.cells) return null;
    const col = this.cells.firstCol + Math.floor((point.x - this.x) / this.scale);
    const row = this.cells.firstRow + Math.floor((point.y - this.y) / this.high);
    return this.cells.index(col, row) < 0 ? null : { col, row };
  }

  /** Where a place's corner lies on the canvas. */
  pointOf({ col, row }) {
    return { x: this.x + (col - this.cells.firstCol) * this.scale, y: this.y + (row - this.cells.firstRow) * this.high };
  }

  #centre(place) {
    const { x, y } = this.pointOf(place);
    return { x: x + this.scale / 2, y: y + this.high / 2 };
  }

  /** Some of the mosaic stays in view. */
  #keepInSight() {
    const [wide, high] = [this.cells.cols * this.scale, this.cells.rows * this.high];
    this.x = Math.min(this.width - 40, Math.max(GUTTER.left + 40 - wide, this.x));
    this.y = Math.min(this.height - 40, Math.max(GUTTER.top + 40 - high, this.y));
  }

  #measure() {
    this.ratio = window.devicePixelRatio || 1;
    [this.width, this.height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    [this.canvas.width, this.canvas.height] = [Math.round(this.width * this.ratio), Math.round(this.height * this.ratio)];
    if (this.fitted) this.fit();
    this.changed();
  }

  url(rest, query = new URLSearchParams()) {
    for (const [name, value] of new URLSearchParams(this.filter)) query.set(name, value);
    return `/api/v1/acquisitions/${this.cells.acquisition}/${rest}${query.size > 0 ? `?${query}` : ""}`;
  }
}

function sameShape(one, other) {
  const fields = ["acquisition", "cols", "rows", "firstCol", "firstRow"];
  return fields.every((field) => one[field] === other[field]);
}
