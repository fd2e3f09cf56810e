// What was published, and what each client saw: facts in the order in which this process saw them.

import { parsePlace } from "../harness/lines.mjs";

let ticks = 0;

/** The next moment: `tick` orders all facts of this process, `ms` measures time. */
export const moment = () => ({ tick: ++ticks, ms: performance.now() });

/** The event's own offset of what a publisher got, or its stream id. */
const acceptedAt = (text) => [...parsePlace(text).values()][0];

/** Whether an offset comes before another one of the same log. */
export const isBefore = (one, other) => one.ms < other.ms || (one.ms === other.ms && one.seq < other.seq);

/** Every event that was published, by its number. */
export class History {
  events = [];

  /** Notes that an event is about to be published. `by` names the publisher, which publishes one event at a time. */
  add({ by, rooms, except = [], volatile = false, bytes }) {
    const sent = moment();
    const event = { n: this.events.length, by, rooms, except, volatile, bytes, attempts: 0, state: "unknown", sent, tried: sent };
    this.events.push(event);
    return event;
  }

  /** Notes an attempt to publish it; there may be several. */
  trying(event) {
    event.attempts += 1;
    event.tried = moment();
  }

  /** The log has it: 200, or XADD returned. `at` is its offset or stream id; a volatile event has none. */
  accepted(event, at) {
    Object.assign(event, { state: "accepted", at: acceptedAt(at), answered: moment() });
  }

  /** It may or may not be stored: 503, a timeout, a lost connection. */
  unknown(event) {
    event.answered = moment();
  }

  count = (state) => this.events.filter((event) => !event.volatile && event.state === state).length;
}

/**
 * What one client saw and asked for, in order. Kinds of facts:
 * - `asked`: it asked to join a room, whose events may come from here on;
 * - `in`: it is in the room for certain;
 * - `leaving`, `out`: it asked to leave; it is out for certain;
 * - `event`;
 * - `notified`: it learned that events may be missing, in `rooms` or in all its rooms;
 * - `fresh`: it has no offset to resume from, so it starts anew.
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
  notified = (how, rooms) => this.note("notified", { how, rooms });
  fresh = (rooms) => this.note("fresh", { rooms });

  event(n, offset, room) {
    this.#got.add(n);
    return this.note("event", { n, place: parsePlace(offset), offset, room });
  }

  /** Whether it got this event. */
  has = (n) => this.#got.has(n);
  get notices() {
    return this.facts.filter(({ kind }) => kind === "notified");
  }
}
