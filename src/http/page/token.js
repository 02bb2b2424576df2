// The token: kept for this tab alone, asked for when the daemon wants one.

import { $, say, show } from "./dom.js";

const KEY = "tilecatcher.token";

export class Tokens {
  constructor() {
    this.asking = null;
    show($("forget"), this.current() !== null);
    $("forget").addEventListener("click", () => {
      sessionStorage.removeItem(KEY);
      location.reload();
    });
    $("token").addEventListener("cancel", (event) => event.preventDefault());
  }

  current() {
    return sessionStorage.getItem(KEY);
  }

  /** Resolves when there is another token than the one that was refused. */
  async ask(refused, why) {
    if (this.current() !== refused) return;
    this.asking ??= this.#dialog(refused, why).finally(() => { this.asking = null; });
    await this.asking;
  }

  #dialog(refused, why) {
    const [dialog, form, text] = [$("token"), $("token-form"), $("token-text")];
    say($("token-why"), refused === null ? "" : `The daemon says: ${why}.`);
    show($("token-why"), refused !== null);
    text.value = "";
    if (!dialog.open) dialog.showModal();
    text.focus();
    return new Promise((done) => {
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        sessionStorage.setItem(KEY, text.value.trim());
        text.value = "";
        dialog.close();
        show($("forget"), true);
        done();
      }, { once: true });
    });
  }
}
