// Pictures of places: fetched when they are seen, few at a time, the newest wish first; kept within a bound; fetched again when
// a tile in them has changed. Must never ask for what is not looked at.

import { isForGood } from "./api.js";

/** Browsers give one daemon six connections: the events need one, and what is clicked must not wait. */
const AT_ONCE = 4;
/** Bytes of decoded pictures that are kept. */
const BYTES_MAX = 128e6;
/** A picture that changes all the time is fetched anew this often. */
const AGAIN_MS = 1500;
/** One that is being made is soon there; a daemon in trouble is left alone for longer. */
const AFTER_FAILURE_MS = [1000, 1000, 1000, 2000, 4000, 8000];
export const LEVEL_MAX = 8;
/** Pixels of a thumbnail's side. */
export const SIDE = 256;
/** Longest sides in which single tiles are asked for. */
export const TILE_SIDES = [512, 1024, 2048, 4096, 8192];

export class Thumbnails {
  /** `changed()`: there is something new to draw. */
  constructor(api, changed) {
    this.api = api;
    this.changed = changed;
    this.pictures = new Map();
    this.bytes = 0;
    this.running = 0;
    this.wishes = [];
    this.frame = 0;
    this.generation = new AbortController();
  }

  /** Forgets everything: another acquisition, section or camera. */
  clear() {
    this.generation.abort();
    this.generation = new AbortController();
    for (const picture of this.pictures.values()) picture.bitmap?.close();
    this.pictures.clear();
    [this.bytes, this.running, this.wishes] = [0, 0, []];
  }

  /** Width and height of an image, pixels. */
  async measure(url) {
    const bitmap = await createImageBitmap(await this.api.blob(url, { signal: this.generation.signal }));
    const { width, height } = bitmap;
    bitmap.close();
    return { width, height };
  }

  /** Begins a frame: wishes of earlier frames count no more. */
  begin() {
    this.frame += 1;
    this.wishes = [];
  }

  /** The picture if it is here, wishing for it where it is not, or is out of date. */
  want(key, url) {
    const now = performance.now();
    let picture = this.pictures.get(key);
    if (!picture) {
      picture = { key, bitmap: null, stale: true, loading: false, notBefore: 0, failures: 0, seen: 0, timer: null };
      this.pictures.set(key, picture);
    }
    picture.seen = this.frame;
    if (picture.stale && !picture.loading) {
      if (now >= picture.notBefore) this.wishes.push({ picture, url });
      else picture.timer ??= setTimeout(() => { picture.timer = null; this.changed(); }, picture.notBefore - now + 5);
    }
    return picture.bitmap;
  }

  /** The picture if it is here. */
  have(key) {
    return this.pictures.get(key)?.bitmap ?? null;
  }

  /** Ends a frame: fetches what it wished for, drops what was not seen for long. */
  end() {
    this.#fetchMore();
    if (this.bytes <= BYTES_MAX && this.pictures.size < 4000) return;
    const oldest = [...this.pictures.values()].filter((one) => !one.loading && one.seen < this.frame);
    oldest.sort((one, other) => one.seen - other.seen);
    for (const picture of oldest) {
      if (this.bytes <= BYTES_MAX * 0.75 && this.pictures.size < 3000) return;
      this.#drop(picture);
    }
  }

  /** Tiles may have come of which nothing was heard. */
  outdate() {
    for (const picture of this.pictures.values()) picture.stale = true;
  }

  /** A tile at this place is new. */
  touch(col, row) {
    for (let level = 0; level <= LEVEL_MAX; level += 1) {
      this.#outdate(`${level}/${Math.floor(col / 2 ** level)}/${Math.floor(row / 2 ** level)}`);
    }
    for (const side of TILE_SIDES) this.#outdate(`tile/${col}/${row}/${side}`);
  }

  #outdate(key) {
    const picture = this.pictures.get(key);
    if (picture) picture.stale = true;
  }

  #drop(picture) {
    if (picture.bitmap) this.bytes -= size(picture.bitmap);
    picture.bitmap?.close();
    this.pictures.delete(picture.key);
  }

  #fetchMore() {
    while (this.running < AT_ONCE && this.wishes.length > 0) {
      const { picture, url } = this.wishes.shift();
      this.#fetch(picture, url, this.generation.signal);
    }
  }

  async #fetch(picture, url, signal) {
    Object.assign(picture, { loading: true, stale: false });
    this.running += 1;
    let bitmap = null;
    let failed = false;
    try {
      bitmap = await createImageBitmap(await this.api.blob(url, { signal, cache: "no-cache" }));
    } catch (problem) {
      // What is not there, or can not be shown, stays so until its tile changes; the rest is tried again later.
      failed = !signal.aborted && !isForGood(problem);
    }
    if (signal.aborted) return bitmap?.close();
    this.running -= 1;
    this.#settle(picture, bitmap, failed);
    this.#fetchMore();
    this.changed();
  }

  #settle(picture, bitmap, failed) {
    picture.loading = false;
    picture.failures = failed ? picture.failures + 1 : 0;
    const pause = failed ? AFTER_FAILURE_MS[Math.min(picture.failures, AFTER_FAILURE_MS.length) - 1] : AGAIN_MS;
    picture.notBefore = performance.now() + pause;
    if (failed) {
      picture.stale = true;
      return;
    }
    if (picture.bitmap) this.bytes -= size(picture.bitmap);
    picture.bitmap?.close();
    picture.bitmap = bitmap;
    if (bitmap) this.bytes += size(bitmap);
  }
}

function size(bitmap) {
  return bitmap.width * bitmap.height * 4;
}
