// Keys and pointers on the mosaic. Keys count only while the canvas has the focus, so that they take none from anybody else.

import { $ } from "./dom.js";

const KEY_ZOOM = 1.5;
const CLICK_MOVE_MAX = 5;
const SHOWS = ["auto", "states", "images"];

/** `on`: open(place), native(), help(). */
export function control(canvas, mosaic, on) {
  keys(canvas, mosaic, on);
  pointers(canvas, mosaic, on);
  $("zoom-in").addEventListener("click", () => mosaic.cells && mosaic.zoomHere(KEY_ZOOM));
  $("zoom-out").addEventListener("click", () => mosaic.cells && mosaic.zoomHere(1 / KEY_ZOOM));
  $("zoom-fit").addEventListener("click", () => mosaic.fit());
  $("zoom-one").addEventListener("click", () => mosaic.cells && on.native());
  $("show").addEventListener("change", () => choose(mosaic, $("show").value));
  $("follow").addEventListener("change", () => follow(mosaic, $("follow").checked));
}

function choose(mosaic, images) {
  mosaic.images = images;
  $("show").value = images;
  mosaic.changed();
}

function follow(mosaic, follows) {
  mosaic.follows = follows;
  $("follow").checked = follows;
  if (follows && mosaic.latest) mosaic.reveal(mosaic.latest, true);
}

function keys(canvas, mosaic, on) {
  const shift = (col, row) => mosaic.move({ col: mosaic.cursor.col + col, row: mosaic.cursor.row + row });
  const problem = (step) => {
    const { cells, cursor } = mosaic;
    const found = cells.nextProblem(cells.index(cursor.col, cursor.row), step);
    if (found >= 0) mosaic.move(cells.place(found));
  };
  const actions = {
    ArrowLeft: (by) => shift(-by, 0),
    ArrowRight: (by) => shift(by, 0),
    ArrowUp: (by) => shift(0, -by),
    ArrowDown: (by) => shift(0, by),
    Home: () => shift(-mosaic.cells.cols, 0),
    End: () => shift(mosaic.cells.cols, 0),
    PageUp: () => shift(0, -mosaic.cells.rows),
    PageDown: () => shift(0, mosaic.cells.rows),
    "+": () => mosaic.zoomHere(KEY_ZOOM),
    "=": () => mosaic.zoomHere(KEY_ZOOM),
    "-": () => mosaic.zoomHere(1 / KEY_ZOOM),
    0: () => mosaic.fit(),
    1: () => on.native(),
    Enter: () => on.open(mosaic.cursor, true),
    n: () => problem(1),
    p: () => problem(-1),
    f: () => follow(mosaic, !mosaic.follows),
    s: () => choose(mosaic, SHOWS[(SHOWS.indexOf(mosaic.images) + 1) % SHOWS.length]),
    "?": () => on.help(),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = actions[key];
    if (!action || !mosaic.cells) return;
    event.preventDefault();
    action(event.shiftKey ? 10 : 1);
  });
}

function pointers(canvas, mosaic, on) {
  const down = new Map();
  let travelled = 0;
  const point = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const between = ([one, other]) => ({
    x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, far: Math.hypot(one.x - other.x, one.y - other.y),
  });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    if (down.size === 0) travelled = 0;
    down.set(event.pointerId, point(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before || !mosaic.cells) return;
    const now = point(event);
    travelled += Math.hypot(now.x - before.x, now.y - before.y);
    if (down.size === 2) {
      const was = between([...down.values()]);
      down.set(event.pointerId, now);
      const is = between([...down.values()]);
      mosaic.pan(is.x - was.x, is.y - was.y);
      if (was.far > 0) mosaic.zoom(is.far / was.far, is);
    } else {
      down.set(event.pointerId, now);
      if (travelled > CLICK_MOVE_MAX) mosaic.pan(now.x - before.x, now.y - before.y);
    }
  });
  const up = (event) => {
    if (!down.delete(event.pointerId)) return;
    const place = event.type === "pointerup" && travelled <= CLICK_MOVE_MAX ? mosaic.placeAt(point(event)) : null;
    if (!place) return;
    mosaic.move(place);
    on.open(place, false);
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("dblclick", (event) => {
    if (mosaic.placeAt(point(event))) mosaic.zoom(mosaic.scale < 200 ? Math.max(2, 240 / mosaic.scale) : 2, point(event));
  });
  canvas.addEventListener("wheel", (event) => {
    if (!mosaic.cells) return;
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
    mosaic.zoom(Math.exp(-Math.max(-300, Math.min(300, event.deltaY * lines)) * 0.0022), point(event));
  }, { passive: false });
}
