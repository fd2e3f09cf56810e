import { BatchError, RoomcastError } from "./error.js";
import { batches, encode } from "./event.js";
import { Connection, isTransient, retrying } from "./request.js";

/** @import { CallOptions, CommandResult, DisconnectCommand, EventOptions, Publish, Published, RevokeCommand, RevokeResult, RoomCommand, RoomcastEvent, RoomcastOptions, RoomPresence, UserPresence } from "./types.js" */

const MAX_USERS = 1000;

/**
 * All that a backend says to roomcast. Requests that failed for a passing reason are sent again, with the event's id,
 * so that a repeat is never sent to clients twice.
 * @template [Events=import("./types.js").AnyEvents] event names and what they carry
 */
export class Roomcast {
  /** @type {Connection} */
  #connection;
  #retries;

  /** @param {RoomcastOptions} [options] */
  constructor(options = {}) {
    this.#connection = new Connection(options);
    this.#retries = options.retries ?? 3;
  }

  /** @type {Publish<Events>} */
  publish = async (/** @type {any} */ first, /** @type {any} */ second, /** @type {any} */ data = undefined, /** @type {EventOptions & CallOptions} */ { signal, ...more } = {}) => {
    const isRoom = typeof second === "string";
    const target = Array.isArray(first) ? { rooms: first } : { room: first };
    const { id, json, volatile } = encode(isRoom ? { ...target, event: second, data, ...more } : first);
    const ends = isRoom ? signal : second?.signal;
    const attempt = () => this.#connection.send("/publish", { body: json, signal: ends });
    try {
      return await retrying(attempt, { retries: volatile ? 0 : this.#retries, signal: ends });
    } catch (error) {
      if (error instanceof RoomcastError) error.id = id;
      throw error;
    }
  };

  /**
   * Publishes any number of events in order, at most 1,000 in a request. Resolves with a result for each, in order;
   * rejects with a BatchError, which has them as `results`, if any was not taken. Nothing is sent after a request that
   * failed as a whole; of a list, nothing is sent if one of them is malformed.
   * @param {Iterable<RoomcastEvent<Events>> | AsyncIterable<RoomcastEvent<Events>>} events
   * @param {CallOptions} [options]
   * @returns {Promise<Published[]>}
   */
  async publishAll(events, { signal } = {}) {
    /** @type {(Published | RoomcastError)[]} */
    const results = [];
    /** @type {RoomcastError | undefined} */
    let broken;
    const all = Symbol.iterator in events ? Array.from(events, encode) : encoded(events);
    for await (const batch of batches(all)) {
      if (!broken) {
        const taken = await this.#batch(batch, signal);
        results.push(...taken);
        const last = taken.at(-1);
        if (last instanceof RoomcastError && taken.every((result) => result instanceof RoomcastError && result.transient)) broken = last;
      } else {
        const { message, ...why } = broken;
        results.push(...batch.map(({ id }) => new RoomcastError(`not sent: ${message}`, { ...why, id })));
      }
    }
    if (results.some((result) => result instanceof RoomcastError)) throw new BatchError(results);
    return /** @type {Published[]} */ (results);
  }

  /**
   * Sends a batch, and again what failed for a passing reason.
   * @param {import("./event.js").Encoded[]} batch
   * @param {AbortSignal} [signal]
   */
  async #batch(batch, signal) {
    /** @type {(Published | RoomcastError)[]} */
    const results = [];
    let waiting = batch.map((event, at) => ({ event, at }));
    const attempt = async () => {
      const answers = await this.sendBatch(waiting.map(({ event }) => event), signal);
      waiting.forEach(({ at }, index) => (results[at] = answers[index] ?? missing()));
      waiting = waiting.filter(({ event, at }) => !event.volatile && passing(results[at]));
      const [next] = waiting;
      if (next) throw results[next.at];
    };
    try {
      await retrying(attempt, { retries: this.#retries, signal });
    } catch (error) {
      if (!(error instanceof RoomcastError)) throw error;
      // The whole request failed; those that an earlier attempt got an answer for keep it.
      const { message, ...why } = error;
      for (const { event, at } of waiting) results[at] = new RoomcastError(message, { ...why, id: event.id });
    }
    return results;
  }

  /**
   * One attempt to publish events that are JSON already, for the outbox: a result for each, in order.
   * @internal
   * @param {{ id: string, json: string }[]} events
   * @param {AbortSignal} [signal]
   * @returns {Promise<(Published | RoomcastError)[]>}
   */
  async sendBatch(events, signal) {
    const body = events.map(({ json }) => json).join("\n");
    try {
      const { results } = await this.#connection.send("/publish", { body, type: "application/x-ndjson", signal });
      return events.map(({ id }, at) => resultOf(results[at], id));
    } catch (error) {
      if (!(error instanceof RoomcastError && error.status === 413)) throw error;
      // `publish.max_body` is less than its default here.
      const [first] = events;
      if (first && events.length === 1) return [Object.assign(error, { id: first.id })];
      const half = Math.ceil(events.length / 2);
      const front = await this.sendBatch(events.slice(0, half), signal);
      return [...front, ...(await this.sendBatch(events.slice(half), signal))];
    }
  }

  /**
   * Puts sessions into rooms, whatever the `[[rooms]]` rules say.
   * @param {RoomCommand} command
   * @param {CallOptions} [options]
   * @returns {Promise<CommandResult>}
   */
  join(command, options) {
    return this.#call("/join", command, options);
  }

  /**
   * Takes sessions out of rooms.
   * @param {RoomCommand} command
   * @param {CallOptions} [options]
   * @returns {Promise<CommandResult>}
   */
  leave(command, options) {
    return this.#call("/leave", command, options);
  }

  /**
   * Ends sessions. Socket.IO clients do not reconnect by themselves.
   * @param {DisconnectCommand} command
   * @param {CallOptions} [options]
   * @returns {Promise<CommandResult>}
   */
  disconnect(command, options) {
    return this.#call("/disconnect", command, options);
  }

  /**
   * Ends a user's sessions and refuses their tokens of before, or those of one token by its `jti`, on every node. Tokens
   * that you issue after it has resolved are accepted.
   * @param {RevokeCommand} command
   * @param {CallOptions} [options]
   * @returns {Promise<RevokeResult>}
   */
  revoke(command, options) {
    return this.#call("/revoke", command, options);
  }

  /**
   * Who is in a room, over all nodes.
   * @param {string} name
   * @param {CallOptions & { namespace?: string }} [options]
   * @returns {Promise<RoomPresence>}
   */
  room(name, { namespace, ...options } = {}) {
    const query = namespace === undefined ? "" : `?namespace=${encodeURIComponent(namespace)}`;
    return this.#call(`/rooms/${encodeURIComponent(name)}${query}`, undefined, options);
  }

  /**
   * Whether a user is online anywhere, and since when not.
   * @param {string | number} id
   * @param {CallOptions} [options]
   * @returns {Promise<UserPresence>}
   */
  user(id, options) {
    return this.#call(`/users/${encodeURIComponent(id)}`, undefined, options);
  }

  /**
   * The same of any number of users, in order.
   * @param {Iterable<string | number>} ids
   * @param {CallOptions} [options]
   * @returns {Promise<UserPresence[]>}
   */
  async users(ids, options) {
    const all = [...ids];
    const known = [];
    for (let at = 0; at < all.length; at += MAX_USERS) {
      const { users } = await this.#call("/users", { users: all.slice(at, at + MAX_USERS) }, options);
      known.push(...users);
    }
    return known;
  }

  /**
   * Commands and questions may be repeated without an id: they do no harm twice.
   * @param {string} path
   * @param {object} [command]
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  #call(path, command, { signal } = {}) {
    const body = command && JSON.stringify(command);
    return retrying(() => this.#connection.send(path, { body, signal }), { retries: this.#retries, signal });
  }
}

/** @param {AsyncIterable<any>} events */
async function* encoded(events) {
  for await (const event of events) yield encode(event);
}

/**
 * @param {any} result
 * @param {string} id
 * @returns {Published | RoomcastError}
 */
function resultOf(result, id) {
  if (!result) return missing(id);
  if (!result.error) return result;
  const { code, message } = result.error;
  return new RoomcastError(`an event was not taken (${code}): ${message}`, { code, id, transient: isTransient(code) });
}

/** @param {string} [id] */
const missing = (id) => new RoomcastError("roomcast answered fewer results than there were events", { code: "not_json", id, transient: true });

/** @param {Published | RoomcastError | undefined} result */
const passing = (result) => result instanceof RoomcastError && result.transient;
