// The mosaic's places as bytes: state and marks of each, counts that are kept up to date, and what is missing. No drawing.

export const STATE_MASK = 0x1f;
export const FLAGGED = 0x20;
export const UNDECODABLE = 0x40;
export const DAMAGED = 0x80;

const NONE = 0;

/** True for a quality flag beside that a tile can not be decoded, which is one by itself. */
export const isFlagged = (byte) => (byte & FLAGGED) !== 0 && (byte & UNDECODABLE) === 0;

export class Cells {
  constructor(answer) {
    this.acquisition = answer.acquisition;
    this.cols = answer.cols;
    this.rows = answer.rows;
    this.firstCol = answer.first_col ?? 0;
    this.firstRow = answer.first_row ?? 0;
    this.legend = answer.legend;
    const packed = atob(answer.cells);
    this.bytes = new Uint8Array(this.cols * this.rows);
    for (let index = 0; index < packed.length; index += 1) this.bytes[index] = packed.charCodeAt(index);
    const empty = ["none", "missing", "refused"].map((name) => this.legend.indexOf(name));
    this.stored = Array.from({ length: 256 }, (_, byte) => !empty.includes(byte & STATE_MASK));
    this.counts = new Array(32).fill(0);
    this.marks = { flagged: 0, undecodable: 0, damaged: 0 };
    for (const byte of this.bytes) this.#count(byte, 1);
  }

  /** Where a place lies in `bytes`; -1 when it is not in this mosaic. */
  index(col, row) {
    const [x, y] = [col - this.firstCol, row - this.firstRow];
    return x >= 0 && y >= 0 && x < this.cols && y < this.rows ? y * this.cols + x : -1;
  }

  place(index) {
    return { col: this.firstCol + (index % this.cols), row: this.firstRow + Math.floor(index / this.cols) };
  }

  at(col, row) {
    const index = this.index(col, row);
    return index < 0 ? NONE : this.bytes[index];
  }

  /** Takes a change over; gives the index, or -1 when the place is none of this mosaic's. */
  put(col, row, byte) {
    const index = this.index(col, row);
    if (index < 0) return -1;
    this.#count(this.bytes[index], -1);
    this.bytes[index] = byte;
    this.#count(byte, 1);
    return index;
  }

  #count(byte, by) {
    this.counts[byte & STATE_MASK] += by;
    if (isFlagged(byte)) this.marks.flagged += by;
    if (byte & UNDECODABLE) this.marks.undecodable += by;
    if (byte & DAMAGED) this.marks.damaged += by;
  }

  state(byte) {
    return this.legend[byte & STATE_MASK] ?? "unknown";
  }

  /** Number of places in the state of this name. */
  number(name) {
    const state = this.legend.indexOf(name);
    return state < 0 ? 0 : this.counts[state];
  }

  /** True when a tile is stored there. */
  isStored(byte) {
    return this.stored[byte];
  }

  /** True when that tile has an image. */
  isShowable(byte) {
    return this.isStored(byte) && !(byte & UNDECODABLE);
  }

  /** The first place whose byte passes. */
  first(test) {
    const index = this.bytes.findIndex(test);
    return index < 0 ? null : this.place(index);
  }

  /** What is wrong with a tile, and how it stands, in words. */
  words(byte) {
    const words = [this.state(byte) === "none" ? "not expected" : this.state(byte)];
    if (byte & UNDECODABLE) words.push("can not be decoded");
    if (isFlagged(byte)) words.push("quality flag");
    if (byte & DAMAGED) words.push("damaged");
    return words.join(", ");
  }

  /** A page of missing places, by column and row, as the daemon's own list has them. */
  missing(offset, length) {
    const wanted = this.legend.indexOf("missing");
    const found = [];
    let passed = 0;
    for (let col = 0; col < this.cols && found.length < length; col += 1) {
      for (let row = 0; row < this.rows && found.length < length; row += 1) {
        if ((this.bytes[row * this.cols + col] & STATE_MASK) !== wanted) continue;
        passed += 1;
        if (passed > offset) found.push({ col: this.firstCol + col, row: this.firstRow + row });
      }
    }
    return found;
  }

  /** The next place, in reading order, that is missing or refused; `step` is 1 or -1. */
  nextProblem(from, step) {
    const total = this.bytes.length;
    for (let walked = 1; walked <= total; walked += 1) {
      const index = (((from + step * walked) % total) + total) % total;
      const name = this.state(this.bytes[index]);
      if (name === "missing" || name === "refused") return index;
    }
    return -1;
  }
}
