// What is drawn of the mosaic: states, images over them, gaps, shapes, rings. Only of what is in view.

import { GUTTER, drawOverview, drawRulers } from "./margins.js";
import { SHAPES_FROM, Shapes } from "./paint.js";
import { LEVEL_MAX, SIDE, TILE_SIDES } from "./thumbnails.js";

/** From this size, device pixels, places show their images when it is left to us. */
const IMAGES_FROM = 28;
/** From these sizes, CSS pixels, there are gaps between places, and bands of their states under images. */
const GAPS_FROM = 5;
const BANDS_FROM = 20;

/** Draws a mosaic (mosaic.js) as it lies. */
export function draw(view) {
  const { context, palette } = view;
  context.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  context.fillStyle = palette.stage;
  context.fillRect(0, 0, view.width, view.height);
  if (!view.cells || view.cells.bytes.length === 0 || view.width === 0) return;
  const seen = inView(view);
  context.save();
  context.beginPath();
  context.rect(GUTTER.left - 2, GUTTER.top - 2, view.width, view.height);
  context.clip();
  drawStates(view, seen);
  if (showsImages(view)) drawImages(view, seen);
  if (view.scale >= GAPS_FROM) drawGaps(view, seen);
  if (view.scale >= SHAPES_FROM) drawShapes(view, seen);
  if (view.latest) ring(view, view.latest, palette.accent, 1.5, 1);
  ring(view, view.cursor, palette["cursor-back"], 4.5, 0.5);
  ring(view, view.cursor, palette.cursor, 2, 0.5);
  context.restore();
  drawRulers(view, seen);
  drawOverview(view);
}

/** Columns and rows in view, counted from the mosaic's corner. */
function inView({ x, y, scale, high, width, height, cells }) {
  const first = (at, side) => Math.max(0, Math.floor(-at / side));
  const last = (at, side, end, length) => Math.min(length - 1, Math.floor((end - at) / side));
  return {
    left: first(x, scale), right: last(x, scale, width, cells.cols), top: first(y, high), bottom: last(y, high, height, cells.rows),
  };
}

function showsImages({ images, scale, ratio }) {
  return images === "images" || (images === "auto" && scale * ratio >= IMAGES_FROM);
}

function drawStates({ context, bitmap, x, y, scale, high, ratio }, { left, right, top, bottom }) {
  const [cols, rows] = [right - left + 1, bottom - top + 1];
  if (cols <= 0 || rows <= 0) return;
  context.imageSmoothingEnabled = scale * ratio < 1;
  context.drawImage(bitmap.canvas, left, top, cols, rows, x + left * scale, y + top * high, cols * scale, rows * high);
}

function drawImages(view, seen) {
  const device = view.scale * view.ratio;
  const level = Math.max(0, Math.min(LEVEL_MAX, Math.round(Math.log2(SIDE / device))));
  view.thumbnails.begin();
  view.context.imageSmoothingEnabled = device < SIDE * 1.5;
  view.context.imageSmoothingQuality = "high";
  eachBlock(view.cells, seen, level, (x, y) => drawBlock(view, level, x, y));
  if (device > SIDE * 1.1) drawTiles(view, seen, device);
  view.thumbnails.end();
}

/** Calls `found` for each block of this level that is in view and holds an image. */
function eachBlock(cells, { left, right, top, bottom }, level, found) {
  const side = 2 ** level;
  const block = (offset, first) => Math.floor((offset + first) / side);
  for (let y = block(top, cells.firstRow); y <= block(bottom, cells.firstRow); y += 1) {
    for (let x = block(left, cells.firstCol); x <= block(right, cells.firstCol); x += 1) {
      if (holdsImage(cells, x * side, y * side, side)) found(x, y);
    }
  }
}

function holdsImage(cells, col, row, side) {
  const [right, bottom] = [Math.min(col + side, cells.firstCol + cells.cols), Math.min(row + side, cells.firstRow + cells.rows)];
  for (let y = Math.max(row, cells.firstRow); y < bottom; y += 1) {
    for (let x = Math.max(col, cells.firstCol); x < right; x += 1) {
      if (cells.isShowable(cells.at(x, y))) return true;
    }
  }
  return false;
}

function drawBlock(view, level, x, y) {
  const side = 2 ** level;
  const bitmap = view.thumbnails.want(`${level}/${x}/${y}`, view.url(`thumbnails/${level}/${x}/${y}`));
  const at = view.pointOf({ col: x * side, row: y * side });
  const box = [at.x, at.y, side * view.scale, side * view.high];
  if (bitmap) view.context.drawImage(bitmap, ...box);
  else drawCoarser(view, level, x, y, box);
}

/** A part of a coarser picture, until the finer one is here. */
function drawCoarser({ thumbnails, context }, level, x, y, box) {
  for (let up = 1; up <= 4; up += 1) {
    const bitmap = thumbnails.have(`${level + up}/${x >> up}/${y >> up}`);
    if (!bitmap) continue;
    const part = SIDE / 2 ** up;
    const within = (value) => (value - ((value >> up) << up)) * part;
    context.drawImage(bitmap, within(x), within(y), part, part, ...box);
    return;
  }
}

/** Single tiles, finer than thumbnails. */
function drawTiles(view, seen, device) {
  const side = TILE_SIDES.find((one) => one >= device * 0.99) ?? TILE_SIDES.at(-1);
  const { context } = view;
  eachBlock(view.cells, seen, 0, (col, row) => {
    const url = view.url(`tile/${col}/${row}/image`, new URLSearchParams({ size: side }));
    const bitmap = view.thumbnails.want(`tile/${col}/${row}/${side}`, url);
    if (!bitmap) return;
    const at = view.pointOf({ col, row });
    context.imageSmoothingEnabled = device < bitmap.width;
    context.drawImage(bitmap, at.x, at.y, view.scale, view.high);
  });
}

function drawGaps({ context, palette, x, y, scale, high }, { left, right, top, bottom }) {
  const path = new Path2D();
  const thick = Math.min(2, scale * 0.12);
  const [allWide, allHigh] = [(right - left + 1) * scale, (bottom - top + 1) * high];
  for (let col = left; col <= right + 1; col += 1) path.rect(x + col * scale - thick / 2, y + top * high, thick, allHigh);
  for (let row = top; row <= bottom + 1; row += 1) path.rect(x + left * scale, y + row * high - thick / 2, allWide, thick);
  context.fillStyle = palette.stage;
  context.fill(path);
}

function drawShapes(view, { left, right, top, bottom }) {
  const { cells, scale, high } = view;
  const shapes = new Shapes();
  const bands = showsImages(view) && scale >= BANDS_FROM;
  for (let row = top; row <= bottom; row += 1) {
    for (let col = left; col <= right; col += 1) {
      const byte = cells.bytes[row * cells.cols + col];
      const [x, y] = [view.x + col * scale, view.y + row * high];
      if (bands && cells.isShowable(byte)) drawBand(view, byte, x, y);
      else shapes.add(cells, byte, x, y, scale, high);
    }
  }
  shapes.draw(view.context, view.palette, Math.min(scale, high));
}

/** The state of a place whose image covers it: a band at its lower edge. */
function drawBand({ context, palette, cells, scale, high }, byte, x, y) {
  const thick = Math.max(2, Math.min(6, scale * 0.06));
  context.fillStyle = palette.of(byte, cells.legend);
  context.fillRect(x + 1, y + high - thick - 1, scale - 2, thick);
}

function ring(view, place, color, width, out) {
  const at = view.pointOf(place);
  const [wide, high] = [Math.max(view.scale, 5), Math.max(view.high, 5)];
  const [left, top] = [at.x - (wide - view.scale) / 2 - out, at.y - (high - view.high) / 2 - out];
  view.context.strokeStyle = color;
  view.context.lineWidth = width;
  view.context.strokeRect(left, top, wide + 2 * out, high + 2 * out);
}
