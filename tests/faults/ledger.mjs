// What was published, and what each client saw: facts in the order in which this process saw them.

let ticks = 0;

/** The next moment: `tick` orders all facts of this process, `ms` is for people and for patience. */
export const moment = () => ({ tick: ++ticks, ms: performance.now() });

/** `{ epoch, ms, seq }` of an offset (`e7k2-1795225216959-0`), or of a stream id with no epoch. */
export function place(text) {
  const parts = /^(?:([0-9a-f]+)-)?(\d+)-(\d+)$/.exec(text ?? "");
  if (!parts) return undefined;
  return { epoch: parts[1], ms: BigInt(parts[2]), seq: BigInt(parts[3]), id: `${parts[2]}-${parts[3]}` };
}

/** Whether a place lies before another one of the same log. */
export const isBefore = (one, other) => one.ms < other.ms || (one.ms === other.ms && one.seq < other.seq);

/** Every event that was published, by its number. */
export class Ledger {
  events = [];

  /** Notes that an event is about to be published. `by` names the publisher, which publishes one after the other. */
  add({ by, rooms, except = [], volatile = false, bytes }) {
    const sent = moment();
    const event = { n: this.events.length, by, rooms, except, volatile, bytes, attempts: 0, state: "unknown", sent, tried: sent };
    this.events.push(event);
    return event;
  }

  /** Notes that it goes out, perhaps once more. */
  trying(event) {
    event.attempts += 1;
    event.tried = moment();
  }

  /** The log has it: 200, or XADD returned. `at` is its offset or stream id; a volatile event has none. */
  accepted(event, at) {
    Object.assign(event, { state: "accepted", at: place(at), answered: moment() });
  }

  /** Whether it was stored is not known: 503, a timeout, a lost connection. */
  unknown(event) {
    event.answered = moment();
  }

  count = (state) => this.events.filter((event) => !event.volatile && event.state === state).length;
}

/**
 * What one client saw and asked for, in order. Kinds of facts:
 * `asked` a room was asked for, from here on its events may come; `in` it is in the room for certain; `leaving` it asked
 * to leave; `out` it is out for certain; `event`; `told` it was told that events may be missing, in `rooms` or in all;
 * `fresh` it had no place to resume from, so it begins anew by itself.
 */
export class Journal {
  facts = [];
  #got = new Set();

  /** `scope: "room"`: order holds within each room (`/ws`, which resumes room by room), else over all rooms. */
  constructor(name, { scope = "all" } = {}) {
    this.name = name;
    this.scope = scope;
  }

  note(kind, more = {}) {
    const fact = { kind, ...moment(), ...more };
    this.facts.push(fact);
    return fact;
  }

  asked = (room) => this.note("asked", { room });
  in = (room) => this.note("in", { room });
  leaving = (room) => this.note("leaving", { room });
  out = (room) => this.note("out", { room });
  told = (how, rooms) => this.note("told", { how, rooms });
  fresh = (rooms) => this.note("fresh", { rooms });

  event(n, offset, room) {
    this.#got.add(n);
    return this.note("event", { n, at: place(offset), offset, room });
  }

  /** Whether it got this event. */
  has = (n) => this.#got.has(n);
  get tellings() {
    return this.facts.filter(({ kind }) => kind === "told");
  }
}
