/** What went wrong, with roomcast's own code: see "Errors" in docs/http-api.md. */
export class RoomcastError extends Error {
  /**
   * @param {string} message
   * @param {{ code: string, status?: number, transient?: boolean, id?: string, retryAfter?: number, cause?: unknown }} what
   */
  constructor(message, { code, status = 0, transient = false, id, retryAfter, cause }) {
    super(message, { cause });
    this.name = "RoomcastError";
    /** roomcast's, or `unreachable`, `timeout`, `not_json`, `bad_event`. */
    this.code = code;
    /** The HTTP status; 0 where there was no answer. */
    this.status = status;
    /** Whether the same may succeed later. With the same `id` a repeat is sent once. */
    this.transient = transient;
    /** The event's idempotency id. */
    this.id = id;
    /** Milliseconds that the answer asked to wait. */
    this.retryAfter = retryAfter;
  }
}

/** Some events of a batch were not taken; `results` has an entry for each event, in order. */
export class BatchError extends RoomcastError {
  /** @param {(import("./types.js").Published | RoomcastError)[]} results */
  constructor(results) {
    const failed = results.filter((result) => result instanceof RoomcastError);
    const [first] = failed;
    super(`${failed.length} of ${results.length} events were not taken; the first: ${first?.message}`, {
      code: first?.code ?? "bad_event",
      status: first?.status,
      transient: failed.every(({ transient }) => transient),
      cause: first,
    });
    this.name = "BatchError";
    this.results = results;
  }
}
