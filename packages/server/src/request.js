// One HTTP request to roomcast, and when to send it again.
import { variable } from "./environment.js";
import { RoomcastError } from "./error.js";

const FIRST_PAUSE_MS = 100;
const MAX_PAUSE_MS = 5000;
/** Statuses after which the same request may succeed. Everything that is sent here may be repeated. */
const TRANSIENT_STATUSES = new Set([408, 429, 502, 503, 504]);
/** The same for an event of a batch, which has no status of its own. */
const TRANSIENT_CODES = new Set(["unavailable", "overloaded", "log_refused", "not_replicated"]);

/** @param {string} code */
export const isTransient = (code) => TRANSIENT_CODES.has(code);

/**
 * The pause before attempt `attempt` (1 is the first repeat): doubled each time, and random between half and all of it,
 * so that many processes do not come back at the same moment.
 * @param {number} attempt
 * @param {number} [max]
 */
export function pauseBefore(attempt, max = MAX_PAUSE_MS) {
  const whole = Math.min(max, FIRST_PAUSE_MS * 2 ** Math.min(attempt - 1, 20));
  return whole * (0.5 + Math.random() / 2);
}

/**
 * @param {number} ms
 * @param {AbortSignal} [signal]
 * @returns {Promise<void>}
 */
export function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const aborted = () => (clearTimeout(timer), reject(signal?.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", aborted), resolve()), ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/**
 * Runs `attempt` until it succeeds, fails for good, or has failed `retries` times more.
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {{ retries: number, signal?: AbortSignal }} options
 */
export async function retrying(attempt, { retries, signal }) {
  for (let repeat = 1; ; repeat++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof RoomcastError && error.transient) || repeat > retries) throw error;
      await pause(Math.max(pauseBefore(repeat), Math.min(error.retryAfter ?? 0, MAX_PAUSE_MS)), signal);
    }
  }
}

/** How roomcast is reached. */
export class Connection {
  /** @param {import("./types.js").RoomcastOptions} options */
  constructor({ url, key, timeout = 5000, fetch = globalThis.fetch }) {
    this.options = { url, key };
    this.timeout = timeout;
    this.fetch = fetch;
  }

  /** Where to and with which key. Read at a request, since builds such as Next's load modules where no secrets are. */
  #address() {
    const { url = variable("ROOMCAST_URL") ?? "http://127.0.0.1:8080", key } = this.options;
    const found = key ?? variable("ROOMCAST_PUBLISH__KEYS")?.split(",")[0]?.trim();
    if (!found) throw new TypeError("there is no key: pass `key`, one of `publish.keys`, or set ROOMCAST_PUBLISH__KEYS");
    return { url: url.replace(/\/+$/, ""), authorization: `Bearer ${found}` };
  }

  /**
   * One attempt; its JSON, or a RoomcastError. `signal` ends it with the signal's own reason.
   * @param {string} path
   * @param {{ body?: string, type?: string, signal?: AbortSignal }} [request]
   * @returns {Promise<any>}
   */
  async send(path, { body, type = "application/json", signal } = {}) {
    signal?.throwIfAborted();
    const { url, authorization } = this.#address();
    const aborter = new AbortController();
    const aborted = () => aborter.abort(signal?.reason);
    signal?.addEventListener("abort", aborted, { once: true });
    let late = false;
    const timer = setTimeout(() => ((late = true), aborter.abort()), this.timeout);
    try {
      const answer = await this.fetch.call(undefined, url + path, {
        method: body === undefined ? "GET" : "POST",
        headers: { authorization, ...(body !== undefined && { "content-type": type }) },
        body,
        signal: aborter.signal,
      });
      // The timeout covers the body too.
      return read(answer, await answer.text());
    } catch (error) {
      if (error instanceof RoomcastError) throw error;
      signal?.throwIfAborted();
      throw this.#unanswered(url, error, late);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
    }
  }

  /**
   * @param {string} url
   * @param {any} cause
   * @param {boolean} late
   */
  #unanswered(url, cause, late) {
    const reason = late ? `did not answer within ${this.timeout} ms` : `is not reachable: ${cause?.cause?.message ?? cause?.message}`;
    return new RoomcastError(`roomcast at ${url} ${reason}`, { code: late ? "timeout" : "unreachable", transient: true, cause });
  }
}

/**
 * @param {Response} answer
 * @param {string} text
 */
function read({ status, ok, headers }, text) {
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    // A proxy's error page, most likely.
  }
  // A batch of which nothing was taken has `results` beside its error: one for each event.
  if (json !== undefined && (ok || Array.isArray(json?.results))) return json;
  const { code = "not_json", message = text.slice(0, 200) } = json?.error ?? {};
  const seconds = Number(headers.get("retry-after"));
  throw new RoomcastError(`roomcast answered ${status} ${code}: ${message}`, {
    code,
    status,
    transient: TRANSIENT_STATUSES.has(status),
    retryAfter: seconds > 0 ? seconds * 1000 : undefined,
  });
}
