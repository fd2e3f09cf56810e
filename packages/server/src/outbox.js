import { RoomcastError } from "./error.js";
import { MAX_BATCH, batches, encode } from "./event.js";
import { pauseBefore } from "./request.js";

/** @import { AnyEvents, OutboxEntry, OutboxOptions, OutboxStore, RoomcastEvent } from "./types.js" */

/** While another process publishes, this one looks this often whether it has taken everything. */
const BUSY_PAUSE_MS = 100;

/**
 * Events that are saved in the transaction of what they announce, and published after it. Neither a crash nor a
 * roomcast that is away loses one, and the ids keep repeats from being sent twice. They are published in the order in
 * which they were saved: each request begins with the oldest, and the log takes a request whole or not at all.
 * @template [Events=AnyEvents]
 * @template [Tx=unknown]
 * @template [Saved=void | Promise<void>]
 */
export class Outbox {
  #roomcast;
  #store;
  #batch;
  #every;
  #maxPause;
  #onError;
  #onRecovery;
  /** @type {Promise<void> | undefined} */
  #draining;
  /** Something was saved since the draining began. */
  #again = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #failures = 0;
  #running = false;
  #closed = new AbortController();

  /**
   * @param {import("./client.js").Roomcast<Events>} roomcast
   * @param {OutboxStore<Tx, Saved>} store
   * @param {OutboxOptions} [options]
   */
  constructor(roomcast, store, { batch = 200, every = 5000, maxPause = 5000, onError, onRecovery } = {}) {
    this.#roomcast = roomcast;
    this.#store = store;
    this.#batch = Math.min(batch, MAX_BATCH);
    this.#every = every;
    this.#maxPause = maxPause;
    this.#onError = onError ?? ((error) => console.error("cannot publish yet:", error.message));
    this.#onRecovery = onRecovery ?? (() => {});
  }

  /**
   * Saves events in a transaction; after its commit, call `wake()`. Throws at once if an event can never be published,
   * so that the transaction is rolled back.
   * @param {Tx} transaction
   * @param {RoomcastEvent<Events> | RoomcastEvent<Events>[]} events
   * @returns {Saved} what the store's `save` returns
   */
  add(transaction, events) {
    const entries = [events].flat().map((event) => {
      const { id, json, volatile } = encode(event);
      if (volatile) throw new RoomcastError("a volatile event is not kept, so it does not belong into an outbox", { code: "bad_event" });
      return { id, event: json };
    });
    return this.#store.save(transaction, entries);
  }

  /** Publishes what earlier runs left, and from now on what other processes leave. */
  start() {
    this.#running = true;
    this.wake();
    return this;
  }

  /** Something was committed: it is published soon. Never throws; what fails is tried again. */
  wake() {
    if (!this.#closed.signal.aborted) this.drain().catch(() => {});
  }

  /**
   * Publishes everything that is there now, in order. Rejects if that fails, and then goes on trying by itself. For
   * functions that end with their request, such as `after(() => outbox.drain())` in Next.
   * @returns {Promise<void>}
   */
  drain() {
    this.#again = true;
    this.#draining ??= this.#untilEmpty();
    return this.#draining;
  }

  /** Stops after the request under way; what is left stays in the store. */
  async close() {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#closed.abort(new Error("the outbox was closed"));
    await this.#draining?.catch(() => {});
  }

  // Between the last look at `#again` and the end of `#draining` there is no await, so no call of drain() is missed.
  async #untilEmpty() {
    clearTimeout(this.#timer);
    try {
      let free = true;
      while (this.#again && free) {
        this.#again = false;
        free = await this.#pass();
      }
      this.#draining = undefined;
      this.#succeeded(free);
    } catch (error) {
      this.#draining = undefined;
      this.#failed(/** @type {Error} */ (error));
      throw error;
    }
  }

  /** False if another process publishes, and has not taken everything yet: it may have looked before the last commit. */
  async #pass() {
    const work = () => this.#publishAll();
    if (!this.#store.exclusively) return work().then(() => true);
    return (await this.#store.exclusively(work)) || (await this.#store.oldest(1)).length === 0;
  }

  async #publishAll() {
    for (;;) {
      this.#closed.signal.throwIfAborted();
      const entries = await this.#store.oldest(this.#batch);
      if (entries.length === 0) return;
      for await (const batch of batches(entries.map(({ id, event }) => ({ id, json: event })))) await this.#publish(batch);
    }
  }

  /** @param {{ id: string, json: string }[]} batch */
  async #publish(batch) {
    const results = await this.#roomcast.sendBatch(batch);
    /** @type {string[]} */
    const taken = [];
    /** @type {RoomcastError | undefined} */
    let passing;
    for (const [at, { id }] of batch.entries()) {
      const result = results[at];
      if (!(result instanceof RoomcastError)) taken.push(id);
      else if (result.transient) passing ??= result;
      else await this.#store.refuse(id, result);
    }
    if (taken.length > 0) await this.#store.remove(taken);
    if (passing) throw passing;
  }

  /** @param {boolean} free */
  #succeeded(free) {
    if (this.#failures > 0) this.#onRecovery();
    this.#failures = 0;
    if (!free) this.#schedule(BUSY_PAUSE_MS);
    else if (this.#running) this.#schedule(this.#every);
  }

  /** @param {Error} error */
  #failed(error) {
    if (this.#closed.signal.aborted) return;
    this.#failures += 1;
    // Once for each trouble, not once for each attempt.
    if (this.#failures === 1) this.#onError(error);
    this.#schedule(pauseBefore(this.#failures, this.#maxPause));
  }

  /** @param {number} ms */
  #schedule(ms) {
    clearTimeout(this.#timer);
    if (this.#closed.signal.aborted) return;
    this.#timer = setTimeout(() => this.wake(), ms);
    // A process that has nothing else to do may end: what is left is in the store.
    /** @type {any} */ (this.#timer).unref?.();
  }
}

/**
 * An outbox in memory, for tests: `await store.transaction(async (tx) => outbox.add(tx, event))`.
 * @implements {OutboxStore<OutboxEntry[], void>}
 */
export class MemoryOutboxStore {
  /** @type {OutboxEntry[]} */
  entries = [];
  /** @type {{ entry: OutboxEntry, error: Error }[]} */
  refused = [];

  /**
   * Keeps what `work` saves if it succeeds.
   * @template T
   * @param {(transaction: OutboxEntry[]) => T | Promise<T>} work
   */
  async transaction(work) {
    /** @type {OutboxEntry[]} */
    const saved = [];
    const result = await work(saved);
    this.entries.push(...saved);
    return result;
  }

  /**
   * @param {OutboxEntry[]} transaction
   * @param {OutboxEntry[]} entries
   */
  save(transaction, entries) {
    transaction.push(...entries);
  }

  /** @param {number} limit */
  oldest(limit) {
    return this.entries.slice(0, limit);
  }

  /** @param {string[]} ids */
  remove(ids) {
    this.entries = this.entries.filter(({ id }) => !ids.includes(id));
  }

  /**
   * @param {string} id
   * @param {Error} error
   */
  refuse(id, error) {
    const entry = this.entries.find((each) => each.id === id);
    if (entry) this.refused.push({ entry, error });
    this.remove([id]);
  }
}
