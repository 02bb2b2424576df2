// Requests to the daemon that the page came from. Sends the token, asks for one where it is needed, and gives errors the
// daemon's own words. Must never put a token into a URL.

/** An answer that is none: the status, the daemon's message, and whether the route itself is not there. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
    this.isNoRoute = status === 404 && message.startsWith("there is nothing at ");
  }
}

/** True when asking again would not help. */
export function isForGood({ status }) {
  return [400, 403, 404, 422].includes(status);
}

async function message(response) {
  const text = await response.text().catch(() => "");
  try {
    return JSON.parse(text).errormessage ?? text;
  } catch {
    return text || `the daemon answered ${response.status}`;
  }
}

export class Api {
  /** `tokens` keeps the token and asks for another one. */
  constructor(tokens) {
    this.tokens = tokens;
  }

  /** The response to a GET, once whoever asks may have it. */
  async open(path, options = {}) {
    for (;;) {
      const token = this.tokens.current();
      const headers = token ? { authorization: `Bearer ${token}` } : {};
      const response = await fetch(path, { ...options, headers, credentials: "omit", redirect: "error" });
      if (response.ok) return response;
      const problem = await message(response);
      if (response.status !== 401) throw new ApiError(response.status, problem);
      await this.tokens.ask(token, problem);
    }
  }

  async json(path, options) {
    return (await this.open(path, options)).json();
  }

  async blob(path, options) {
    return (await this.open(path, options)).blob();
  }
}
