// Events as `POST /publish` takes them: checked, with an id, and in batches that a request may have.
import { RoomcastError } from "./error.js";

/** Of one request: roomcast's limit, and less than the default of `publish.max_body` (5 MB). */
export const MAX_BATCH = 1000;
const MAX_BATCH_BYTES = 4 << 20;
const MAX_ROOMS = 100;
const RESERVED = new Set(["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"]);

/** @typedef {{ id: string, json: string, volatile: boolean }} Encoded */

/**
 * The event as JSON, with an id if it has none. What is wrong with it is said here, where the caller is, and not by a
 * refusal later.
 * @param {any} event
 * @returns {Encoded}
 */
export function encode(event) {
  const wrong = mistake(event);
  if (wrong) throw new RoomcastError(`the event cannot be published: ${wrong}`, { code: "bad_event" });
  const id = event.id ?? globalThis.crypto.randomUUID();
  return { id, json: JSON.stringify({ ...event, id }), volatile: event.volatile === true };
}

/** @param {any} event */
function mistake(event) {
  const { room, rooms, event: name, data, args } = event ?? {};
  const all = rooms ?? [room];
  if (room !== undefined && rooms !== undefined) return "it has both `room` and `rooms`";
  if (!Array.isArray(all) || all.length === 0 || !all.every((each) => typeof each === "string" && each !== "")) return "`room` must be a text, or `rooms` a list of texts";
  if (all.length > MAX_ROOMS) return `it is for ${all.length} rooms, at most ${MAX_ROOMS} are allowed`;
  if (typeof name !== "string" || name === "") return "`event` must be its name";
  if (RESERVED.has(name)) return `"${name}" is reserved by Socket.IO; choose another name`;
  if (data !== undefined && args !== undefined) return "it has both `data` and `args`";
  if (args !== undefined && !Array.isArray(args)) return "`args` must be a list";
}

/**
 * Groups what may go into one request.
 * @template {{ json: string }} T
 * @param {Iterable<T> | AsyncIterable<T>} events
 * @returns {AsyncGenerator<T[], void, undefined>}
 */
export async function* batches(events) {
  /** @type {T[]} */
  let batch = [];
  let bytes = 0;
  for await (const event of events) {
    // A character has at most three bytes for each unit of its length.
    const size = event.json.length * 3;
    if (batch.length === MAX_BATCH || (batch.length > 0 && bytes + size > MAX_BATCH_BYTES)) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(event);
    bytes += size;
  }
  if (batch.length > 0) yield batch;
}
