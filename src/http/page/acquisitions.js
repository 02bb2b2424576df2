// The list of acquisitions, open ones first, as the daemon gives it; the chosen one; choices of section and camera.

import { $, count, differs, el, fill, short, show } from "./dom.js";

export class Acquisitions {
  /** `chosen(id)`: another acquisition is to be shown. */
  constructor(chosen) {
    this.chosen = chosen;
    this.list = [];
    this.current = null;
    this.wanted = new URLSearchParams(location.search).get("acquisition");
    this.byHand = false;
  }

  /** Takes the list; shows an open acquisition unless somebody chose. */
  take(list) {
    this.list = list;
    show($("no-acquisitions"), list.length === 0);
    show($("acquisition-list"), list.length > 0);
    $("no-acquisitions").textContent = "No acquisition yet.";
    this.#choose(this.#next()?.id ?? null);
    this.#show();
  }

  /** The shown one is not there any more. */
  forget() {
    this.byHand = false;
    this.#choose(null);
  }

  /** What is to be shown: what the address names, what was chosen, an open one, the newest. */
  #next() {
    if (/^[0-9]+$/.test(this.wanted ?? "")) {
      [this.current, this.byHand] = [null, true];
      return { id: Number(this.wanted) };
    }
    const shown = this.get();
    // One that is chosen stays, though the list has no room for it.
    if (this.byHand && this.current !== null) return { id: this.current };
    if (shown?.state === "open") return shown;
    return this.list.find((one) => one.state === "open") ?? shown ?? this.list[0];
  }

  get(id = this.current) {
    return this.list.find((one) => one.id === id);
  }

  #choose(id) {
    this.wanted = null;
    // Only what somebody chose is in the address: loaded again, the page otherwise shows what is captured then.
    const query = this.byHand && id !== null ? `?acquisition=${id}` : "";
    if (location.search !== query) history.replaceState(null, "", query || location.pathname);
    if (id === this.current) return;
    this.current = id;
    this.chosen(id);
  }

  #show() {
    const shown = this.list.map((one) => ({ ...row(one), current: one.id === this.current }));
    fill($("acquisition-list"), shown, (one) => String(one.id), (one) => this.#entry(one));
  }

  #entry(one) {
    const bar = el("span", { className: "track", "aria-hidden": "true" });
    for (const [kind, share] of one.shares) {
      const part = el("span", { className: `part ${kind}` });
      part.style.width = `${share}%`;
      bar.append(part);
    }
    const button = el("button", { type: "button", className: "acquisition", "aria-current": one.current ? "true" : null },
      el("span", { className: "line" }, el("strong", {}, String(one.id)), el("span", { className: "name" }, one.name),
        el("span", { className: "state", "data-tone": one.open ? "good" : "quiet" }, one.open ? "open" : "ended")),
      bar, el("span", { className: "quiet small" }, one.words));
    button.addEventListener("click", () => {
      this.byHand = true;
      this.#choose(one.id);
      this.#show();
    });
    return el("li", {}, button);
  }
}

/** How far an acquisition is, or a part of it. */
export function received(one) {
  return one.expected > 0 ? `${count(one.received)} of ${count(one.expected)}` : `${count(one.received ?? 0)} tiles`;
}

/** What is shown of an acquisition, so that nothing is made anew when none of that has changed. */
function row(one) {
  const all = Math.max(1, one.expected ?? 0, (one.received ?? 0) + (one.missing ?? 0));
  const share = (number) => Number((((number ?? 0) / all) * 100).toFixed(1));
  const words = [received(one)];
  // The daemon counts a place whose tile was refused as missing, too; the mosaic shows it as refused.
  const missing = (one.missing ?? 0) - (one.refused ?? 0);
  if (missing > 0) words.push(`${count(missing)} missing`);
  if (one.refused > 0) words.push(`${count(one.refused)} refused`);
  if (one.drift > 0) words.push(`${count(one.drift)} drift frames`);
  if (one.tiles_per_s > 0) words.push(`${short(one.tiles_per_s)} tiles/s`);
  return {
    id: one.id, name: [one.name, one.project, one.mosaic].filter((name, at, all) => name && all.indexOf(name) === at).join(" · "),
    open: one.state === "open",
    shares: [["received", share(one.received)], ["refused", share(one.refused)]], words: words.join(", "),
  };
}

/** Fills a choice; hidden where there is nothing to choose. `options`: [value, words]. */
export function offer(id, options, chosen) {
  const select = $(id);
  show($(`${id}-choice`), options.length > 1);
  if (differs(select, options)) {
    select.replaceChildren(...[["", "all"], ...options].map(([value, words]) => el("option", { value: String(value) }, words)));
  }
  select.value = options.some(([value]) => String(value) === chosen) ? chosen : "";
}
