// Talking to the API: single requests, and the stream of what changes. EventSource cannot send a key, fetch can.

const KEY = "vessel-key";
const SILENT_MS = 25000;
const LONGEST_WAIT_MS = 15000;

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (text) => sessionStorage.setItem(KEY, text),
  forget: () => sessionStorage.removeItem(KEY),
};

export class Refused extends Error {
  constructor(status, message, retryAfter) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

const headers = (more = {}) => (key.get() ? { authorization: `Bearer ${key.get()}`, ...more } : more);

async function refused(answer) {
  let text = `The API answered with ${answer.status}.`;
  try {
    text = (await answer.json()).error.message ?? text;
  } catch {
    // An answer of something in between; its status has to do.
  }
  return new Refused(answer.status, text, Number(answer.headers.get("retry-after")) || 0);
}

/** Ask for a path; raises Refused, or TypeError where nobody answers. */
export async function ask(path, method = "GET", body = undefined) {
  const more = body === undefined ? {} : { "content-type": "application/json" };
  const answer = await fetch(path, { method, headers: headers(more), body: body === undefined ? undefined : JSON.stringify(body), credentials: "omit", cache: "no-store", redirect: "error", signal: AbortSignal.timeout(20000) });
  if (!answer.ok) throw await refused(answer);
  return answer.json();
}

/** Follow the stream until `stop`; goes on by itself with growing pauses when it breaks. */
export class Stream {
  constructor(path, { seen, lost, signedOut }) {
    Object.assign(this, { path, seen, lost, signedOut, tries: 0, running: false });
  }

  start() {
    if (this.running) return;
    this.running = true;
    this.tries = 0;
    this.#open();
  }

  stop() {
    this.running = false;
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  now() {
    if (!this.running) return;
    clearTimeout(this.timer);
    this.#open();
  }

  async #open() {
    const abort = (this.abort = new AbortController());
    try {
      await this.#read(abort);
      if (abort === this.abort) this.#again(0);
    } catch (error) {
      if (!this.running || abort !== this.abort) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        this.stop();
        this.signedOut(error.message);
      } else this.#again(error.retryAfter ?? 0, error instanceof Refused ? error.message : "");
    }
  }

  #again(leastS, why = "") {
    if (!this.running) return;
    const pause = Math.max(leastS * 1000, Math.min(LONGEST_WAIT_MS, 1000 * 2 ** this.tries) * (0.75 + Math.random() / 2));
    this.tries += 1;
    this.lost(Date.now() + pause, why);
    this.timer = setTimeout(() => this.#open(), pause);
  }

  async #read(abort) {
    let silence = setTimeout(() => abort.abort(), SILENT_MS);
    try {
      const answer = await fetch(this.path, { headers: headers({ accept: "text/event-stream" }), credentials: "omit", cache: "no-store", redirect: "error", signal: abort.signal });
      if (!answer.ok) throw await refused(answer);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => abort.abort(), SILENT_MS);
        text += value;
        const blocks = text.split("\n\n");
        text = blocks.pop();
        for (const block of blocks) this.#event(block);
      }
    } finally {
      clearTimeout(silence);
    }
  }

  #event(block) {
    let event = "message";
    const data = [];
    for (const line of block.split("\n")) {
      if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
    }
    if (event === "signed_out") throw new Refused(401, "This key does not open anything any more.");
    if (event !== "seen" || !data.length) return;
    this.tries = 0;
    this.seen(JSON.parse(data.join("\n")));
  }
}
