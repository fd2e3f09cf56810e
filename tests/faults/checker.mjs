// Compares what was published with what each client saw. No clock, no network: see checker.test.mjs.
import { PARTITIONS } from "../harness/config.mjs";
import { lineOf } from "../harness/lines.mjs";
import { isBefore } from "./history.mjs";

/** Milliseconds within which a client must be notified of a gap, once it has received something after the gap. */
const NOTIFY_WITHIN = 3000;

/** The kinds of faults. `excused` (missing, but the client was notified) and `missing` are faults in some tests only. */
export const FAULTS = ["lost", "duplicated", "reordered", "unentitled", "wrongOffset", "unknown"];

/**
 * Reads a client's journal and answers its faults, each kind a list:
 * - `lost`: accepted, entitled, never delivered, and the client was not notified;
 * - `excused`: the same, but the client was notified; `missing` is both;
 * - `duplicated`;
 * - `reordered`: against the order of the log;
 * - `unentitled`: delivered to a client that was in none of its rooms, or in an excepted one;
 * - `wrongOffset`: delivered with another offset than the publisher, or another client, got;
 * - `unknown`: nobody published it.
 */
export function inspect(history, journal, offsets = new Map()) {
  const client = new Client(history, journal, offsets);
  for (const fact of journal.facts) client[fact.kind](fact);
  client.close();
  const { found } = client;
  return { name: journal.name, delivered: client.seen.size, notices: journal.notices.length, missing: [...found.lost, ...found.excused], ...found };
}

/** The reports of all clients. Offsets are compared between them. */
export function inspectAll(history, journals) {
  const offsets = new Map();
  return journals.map((journal) => inspect(history, journal, offsets));
}

class Client {
  found = { excused: [], ...Object.fromEntries(FAULTS.map((kind) => [kind, []])) };
  /** Event number -> `{ first }`, the fact of its first delivery. */
  seen = new Map();
  /** Rooms whose events may come, and those whose events must come: room -> the `in` fact. */
  possible = new Set();
  certain = new Map();
  /** Spans of time in a room that are over. */
  spans = [];
  /** For each scope the last offset, the epochs before it, and the last event of each publisher. */
  last = new Map();
  notices = [];

  constructor(history, journal, offsets) {
    Object.assign(this, { history, journal, offsets });
  }

  asked({ room }) {
    this.possible.add(room);
  }

  in(fact) {
    this.possible.add(fact.room);
    if (!this.certain.has(fact.room)) this.certain.set(fact.room, fact);
  }

  leaving(fact) {
    this.#end(fact.room, "left", fact);
  }

  out(fact) {
    this.#end(fact.room, "left", fact);
    this.possible.delete(fact.room);
  }

  notified(fact) {
    this.notices.push(fact);
    this.#restart(fact);
  }

  fresh(fact) {
    this.#restart(fact);
  }

  /** Only for people who read a journal. */
  recovered() {}

  error(fact) {
    this.#fault("unknown", fact, `${fact.code}: ${fact.message}`);
  }

  #restart(fact) {
    for (const room of fact.rooms ?? [...this.possible]) {
      this.#end(room, "notified", fact);
      this.possible.delete(room);
    }
  }

  #end(room, how, fact) {
    const begun = this.certain.get(room);
    if (!begun) return;
    this.certain.delete(room);
    this.spans.push({ room, begun, how, ended: fact, last: this.#lastsOf(room) });
  }

  close() {
    for (const [room, begun] of this.certain) this.spans.push({ room, begun, how: "still in" });
    for (const event of this.history.events) this.#expect(event);
  }

  // ---- what came

  event(fact) {
    const event = this.history.events[fact.n];
    if (!event) return this.#fault("unknown", fact, "nobody published it");
    fact.at = fact.place.get(this.#lineOf(event));
    this.#checkEntitled(event, fact);
    this.#checkOffset(event, fact);
    this.#checkOrder(event, fact);
    const before = this.seen.get(fact.n);
    if (!before) this.seen.set(fact.n, { first: fact });
    else if (!this.#mayRepeat(event, before.first)) this.#fault("duplicated", fact, `first at ${before.first.offset}`);
  }

  /** The publisher got no answer and tried again, and the log lost the first attempt: the client was notified of that. */
  #mayRepeat(event, first) {
    return event.attempts > 1 && this.notices.some(({ tick }) => tick > first.tick);
  }

  #checkEntitled(event, fact) {
    if (!event.rooms.some((room) => this.possible.has(room))) return this.#fault("unentitled", fact, `in none of ${event.rooms}`);
    if (fact.room !== undefined && !event.rooms.includes(fact.room)) return this.#fault("unentitled", fact, `sent as of ${fact.room}`);
    const excepted = event.except.find((room) => this.certain.get(room)?.tick < event.sent.tick);
    if (excepted) this.#fault("unentitled", fact, `excepted by ${excepted}`);
  }

  #checkOffset(event, fact) {
    if (!fact.at) return this.#fault("wrongOffset", fact, "no offset");
    if (event.volatile) return;
    if (event.at && event.attempts === 1 && event.at.id !== fact.at.id) this.#fault("wrongOffset", fact, `accepted at ${event.at.id}`);
    const offset = `${fact.at.line} ${fact.at.epoch}-${fact.at.id}`;
    const other = this.offsets.get(offset);
    if (other !== undefined && other !== event.n) this.#fault("wrongOffset", fact, `${offset} is also event ${other}`);
    this.offsets.set(offset, event.n);
  }

  #scope = (room) => (this.journal.scope === "room" ? room : "");
  /** By line. */
  #lastsOf = (room) => new Map(this.last.get(this.#scope(room)));
  /** Where its publisher got it accepted, or else where it belongs: only over HTTP an event gets the line of its rooms. */
  #lineOf = (event) => event.at?.line ?? (event.by.startsWith("http") ? lineOf(PARTITIONS, event.rooms, event.except) : 0);

  #checkOrder(event, fact) {
    if (!fact.at) return;
    const scope = this.#scope(fact.room);
    const lines = this.last.get(scope) ?? new Map();
    this.last.set(scope, lines);
    const last = lines.get(fact.at.line) ?? { epochs: new Set(), by: new Map() };
    if (last.at && last.at.epoch !== fact.at.epoch) {
      last.epochs.add(last.at.epoch);
      last.by.clear();
      if (last.epochs.has(fact.at.epoch)) return this.#fault("reordered", fact, `after ${last.offset}, a later epoch`);
    } else if (last.at && isBefore(fact.at, last.at)) {
      return this.#fault("reordered", fact, `after ${last.offset}`);
    }
    // A publisher waits for each answer, so the log has its events in the order of their numbers.
    const settled = !event.volatile && event.state === "accepted" && event.attempts === 1;
    if (settled) {
      if (last.by.get(event.by) > event.n) return this.#fault("reordered", fact, `after event ${last.by.get(event.by)} of the same publisher`);
      last.by.set(event.by, event.n);
    }
    lines.set(fact.at.line, { ...last, at: fact.at, offset: fact.offset });
  }

  // ---- what did not come

  #expect(event) {
    if (event.volatile || event.state !== "accepted" || this.seen.has(event.n)) return;
    const spans = this.spans.filter(({ room, begun }) => event.rooms.includes(room) && begun.tick < event.sent.tick);
    if (spans.length === 0 || this.#isExcepted(event)) return;
    const verdicts = spans.map((span) => this.#verdict(event, span));
    const kind = ["lost", "excused"].find((one) => verdicts.includes(one));
    if (kind) this.#fault(kind, { n: event.n, offset: event.at?.id }, `rooms ${event.rooms}, by ${event.by}`);
  }

  /** A client that is, or may be, in an excepted room need not get the event. */
  #isExcepted(event) {
    return this.journal.facts.some(({ kind, room }) => (kind === "asked" || kind === "in") && event.except.includes(room));
  }

  #verdict(event, { room, how, ended, last, begun }) {
    if (how === "still in") return "lost";
    if (how === "left") {
      // An event after the last one seen may have reached the node after the client had left the room.
      const seen = event.at && last.get(event.at.line)?.at;
      const due = event.sent.tick < ended.tick && seen && isBefore(event.at, seen);
      return due ? "lost" : "not due";
    }
    if (event.sent.tick > ended.tick) return "not due";
    return this.#notifiedTooLate(event, room, begun, ended) ? "lost" : "excused";
  }

  /** The client received something after the gap, and it took too long until it was notified of the gap. */
  #notifiedTooLate(event, room, begun, notice) {
    if (!event.at) return false;
    const after = this.journal.facts.find((fact) => this.#isAfterGap(fact, event, room, begun));
    return after !== undefined && notice.ms - after.ms > NOTIFY_WITHIN;
  }

  /**
   * Only offsets of one epoch can be compared, and the answer to a publisher does not name the epoch: XADD never does, and
   * a node that has not noticed a new master yet names the epoch before. But the epoch is no older than the last attempt.
   */
  #isAfterGap(fact, event, room, begun) {
    if (fact.kind !== "event" || fact.tick < Math.max(begun.tick, event.tried.tick) || !fact.at || this.#scope(fact.room) !== this.#scope(room)) return false;
    const came = this.history.events[fact.n];
    return came && !came.volatile && fact.at.line === event.at.line && isBefore(event.at, fact.at);
  }

  #fault(kind, { n, offset, ms }, why) {
    this.found[kind].push({ n, offset, why, ...(ms && { ms: Math.round(ms) }) });
  }
}

const SHOWN = 4;

/** The faults of these kinds as text, empty where there are none. */
export function faultsOf(reports, kinds) {
  return reports.flatMap((report) => kinds.filter((kind) => report[kind].length > 0).map((kind) => {
    const few = report[kind].slice(0, SHOWN).map(({ n, offset, why, ms }) => `    event ${n} at ${offset}${ms ? `, ${ms} ms` : ""}: ${why}`);
    return [`  ${report.name}: ${report[kind].length} ${kind}, ${report.delivered} delivered, ${report.notices} notices`, ...few].join("\n");
  })).join("\n");
}
