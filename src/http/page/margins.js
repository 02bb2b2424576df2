// Numbers of columns and rows at the mosaic's edges, and the whole of it in a corner when only a part is in view.

/** Room for the numbers, CSS pixels. */
export const GUTTER = { left: 38, top: 20 };
const OVERVIEW = { wide: 150, high: 110 };

export function drawRulers({ context, palette, scale, high, x, y, width, height, cells }, { left, right, top, bottom }) {
  context.fillStyle = palette.stage;
  context.fillRect(0, 0, width, GUTTER.top - 3);
  context.fillRect(0, 0, GUTTER.left - 3, height);
  context.fillStyle = palette.ruler;
  context.font = "11px system-ui, sans-serif";
  context.textBaseline = "middle";
  const begin = (offset, first, by) => Math.ceil((offset + first) / by) * by - first;
  const across = step(48 / scale);
  context.textAlign = "center";
  for (let col = begin(left, cells.firstCol, across); col <= right; col += across) {
    const at = x + (col + 0.5) * scale;
    if (at > GUTTER.left + 4 && at < width - 8) context.fillText(col + cells.firstCol, at, GUTTER.top / 2 - 1);
  }
  const down = step(26 / high);
  context.textAlign = "right";
  for (let row = begin(top, cells.firstRow, down); row <= bottom; row += down) {
    const at = y + (row + 0.5) * high;
    if (at > GUTTER.top + 2 && at < height - 4) context.fillText(row + cells.firstRow, GUTTER.left - 8, at);
  }
}

/** 1, 2, 5, 10, 20, ...: the least that is not below. */
function step(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, least)));
  return [1, 2, 5, 10].map((part) => part * power).find((part) => part >= least) ?? power * 10;
}

export function drawOverview({ context, palette, bitmap, cells, scale, high, aspect, x, y, width, height }) {
  const [allWide, allHigh] = [cells.cols * scale, cells.rows * high];
  const allSeen = x >= 0 && y >= 0 && x + allWide <= width + 1 && y + allHigh <= height + 1;
  if (allSeen || width < 300) return;
  const fit = Math.min(OVERVIEW.wide / cells.cols, OVERVIEW.high / (cells.rows * aspect));
  const box = { wide: Math.max(8, cells.cols * fit), high: Math.max(8, cells.rows * aspect * fit) };
  const at = { x: width - box.wide - 10, y: height - box.high - 10 };
  context.fillStyle = palette.stage;
  context.fillRect(at.x - 4, at.y - 4, box.wide + 8, box.high + 8);
  context.imageSmoothingEnabled = fit < 1;
  context.drawImage(bitmap.canvas, at.x, at.y, box.wide, box.high);
  const part = (value, side, all) => Math.max(0, Math.min(side, (value / all) * side));
  const [left, top] = [part(-x, box.wide, allWide), part(-y, box.high, allHigh)];
  const [right, bottom] = [part(width - x, box.wide, allWide), part(height - y, box.high, allHigh)];
  context.strokeStyle = palette.cursor;
  context.lineWidth = 1.5;
  context.strokeRect(at.x + left, at.y + top, Math.max(3, right - left), Math.max(3, bottom - top));
  context.strokeStyle = palette.ruler;
  context.lineWidth = 1;
  context.strokeRect(at.x - 3.5, at.y - 3.5, box.wide + 7, box.high + 7);
}
