// The stream of events: server-sent events read with fetch, for EventSource can send no token. Notices when nothing comes any
// more, tries again with growing pauses, and says what it is doing.

import { ApiError } from "./api.js";

/** The daemon says something every second; after this long without a word the connection is taken for lost. */
const SILENCE_MS = 7000;
/** A machine that was cut off does not even refuse: a request that has no answer by then is given up. */
const NO_ANSWER_MS = 15000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15000;

export class Live {
  /** `on`: opened(), event(name, data), lost(problem, pause in ms). */
  constructor(api, on) {
    this.api = api;
    this.on = on;
    this.acquisition = null;
    this.pause = FIRST_PAUSE_MS;
    this.attempt = null;
    this.wake = null;
    window.addEventListener("online", () => this.retry());
  }

  /** Follows another acquisition, or none. */
  follow(acquisition) {
    if (this.attempt && this.acquisition === acquisition) return;
    this.acquisition = acquisition;
    this.restart();
  }

  restart() {
    this.pause = FIRST_PAUSE_MS;
    this.attempt?.abort();
    this.wake?.();
    this.#run();
  }

  /** Lets go of the connection until it is resumed. */
  pauseNow() {
    this.attempt?.abort();
    this.attempt = null;
    this.wake?.();
  }

  resume() {
    if (this.attempt === null) this.restart();
  }

  /** Does not wait any longer. */
  retry() {
    if (!this.wake) return;
    this.pause = FIRST_PAUSE_MS;
    this.wake();
  }

  async #run() {
    const attempt = new AbortController();
    this.attempt = attempt;
    while (!attempt.signal.aborted) {
      const problem = await this.#once(attempt.signal);
      if (attempt.signal.aborted) return;
      const pause = this.pause * (0.8 + 0.4 * Math.random());
      this.pause = Math.min(LONGEST_PAUSE_MS, this.pause * 2);
      this.on.lost(problem, pause);
      if (attempt.signal.aborted) return;
      await new Promise((done) => {
        const timer = setTimeout(done, pause);
        this.wake = () => { clearTimeout(timer); done(); };
      });
      this.wake = null;
    }
  }

  /** One connection to its end; gives why it ended. */
  async #once(stopped) {
    const connection = new AbortController();
    const stop = () => connection.abort();
    stopped.addEventListener("abort", stop);
    let silence = null;
    const allow = (ms) => {
      clearTimeout(silence);
      // While a token is asked for, it is not the daemon that is silent.
      silence = setTimeout(() => (this.api.tokens.asking ? allow(ms) : stop()), ms);
    };
    const heard = () => allow(SILENCE_MS);
    try {
      allow(NO_ANSWER_MS);
      const query = this.acquisition === null ? "" : `?acquisition=${this.acquisition}`;
      const response = await this.api.open(`/api/v1/events${query}`, { signal: connection.signal, cache: "no-store" });
      heard();
      this.on.opened();
      await this.#read(response.body, heard, stopped);
      return new Error("the daemon closed the connection");
    } catch (problem) {
      if (connection.signal.aborted) return new Error("the daemon has gone silent");
      return problem instanceof ApiError ? problem : new Error("the daemon can not be reached");
    } finally {
      clearTimeout(silence);
      stopped.removeEventListener("abort", stop);
      connection.abort();
    }
  }

  async #read(body, heard, stopped) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser((name, data) => {
      if (stopped.aborted) return;
      this.pause = FIRST_PAUSE_MS;
      this.on.event(name, data);
    });
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      heard();
      parser.take(value);
    }
  }
}

/** Cuts a text/event-stream into events. */
class EventParser {
  constructor(give) {
    this.give = give;
    this.rest = "";
    this.name = "message";
    this.data = [];
  }

  take(text) {
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === "") return this.#end();
    const colon = line.indexOf(":");
    if (colon === 0) return; // A comment, to keep the connection.
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.name = value;
    if (field === "data") this.data.push(value);
  }

  #end() {
    const [name, data] = [this.name, this.data.join("\n")];
    [this.name, this.data] = ["message", []];
    if (data === "") return;
    let parsed;
    try {
      parsed = JSON.parse(data);
    } catch {
      return; // Of a newer daemon.
    }
    this.give(name, parsed);
  }
}
