// Missing tiles, page by page, out of the cells that are here anyway: exact at every moment, and no load for the daemon.

import { $, count, el, fill, say, show } from "./dom.js";

const PAGE = 100;

export class Missing {
  /** `go(place)`: show it. */
  constructor(go) {
    this.go = go;
    this.offset = 0;
    this.cells = null;
    $("missing-back").addEventListener("click", () => this.#turn(-PAGE));
    $("missing-next").addEventListener("click", () => this.#turn(PAGE));
  }

  show(cells) {
    if (cells?.acquisition !== this.cells?.acquisition) this.offset = 0;
    this.cells = cells;
    const total = cells ? cells.number("missing") : 0;
    while (this.offset > 0 && this.offset >= total) this.offset -= PAGE;
    say($("missing-count"), cells ? words(total) : "Nothing is expected yet.");
    const page = total > 0 ? cells.missing(this.offset, PAGE) : [];
    show($("missing-pager"), total > PAGE);
    say($("missing-page"), `${count(this.offset + 1)} to ${count(this.offset + page.length)} of ${count(total)}`);
    $("missing-back").disabled = this.offset === 0;
    $("missing-next").disabled = this.offset + PAGE >= total;
    this.#rows(page);
  }

  #turn(by) {
    this.offset = Math.max(0, this.offset + by);
    this.show(this.cells);
    $("missing-list").scrollTop = 0;
  }

  /** One table; its rows are made anew only when they differ. */
  #rows(page) {
    const box = $("missing-list");
    show(box, page.length > 0);
    if (page.length === 0) return box.replaceChildren();
    if (!box.querySelector("tbody")) {
      const head = el("thead", {}, el("tr", {}, ["Column", "Row", ""].map((name) => (name ? el("th", { scope: "col" }, name) : el("td")))));
      box.replaceChildren(el("table", {}, el("caption", { className: "unseen" }, "Missing tiles"), head, el("tbody")));
    }
    fill(box.querySelector("tbody"), page, ({ col, row }) => `${col},${row}`, ({ col, row }) => {
      const button = el("button", { type: "button", className: "plain", "aria-label": `Show column ${col}, row ${row}` }, "show");
      button.addEventListener("click", () => this.go({ col, row }));
      return el("tr", {}, el("td", {}, String(col)), el("td", {}, String(row)), el("td", {}, button));
    });
  }
}

function words(total) {
  if (total === 0) return "None.";
  return total === 1 ? "1 place has no tile yet." : `${count(total)} places have no tile yet.`;
}
