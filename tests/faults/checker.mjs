// From what was published and what each client saw to what is wrong. No clock, no network: see checker.test.mjs.
import { isBefore } from "./ledger.mjs";

/** Milliseconds within which a client must be told of a hole, once it has got something from behind it. */
const TELL_WITHIN = 3000;

/** The kinds of faults; `lost` and `told` (missing, but the client was told) are not faults everywhere. */
export const FAULTS = ["untold", "doubled", "reordered", "unentitled", "misplaced", "unknown"];

/**
 * Reads a client's journal and answers its faults, each kind a list:
 * - `untold`: accepted, entitled, never delivered, and nobody told the client;
 * - `told`: the same, but the client was told; `lost` is both;
 * - `doubled`, `reordered` (against the order of the log), `unentitled` (delivered to somebody who may not have it),
 *   `misplaced` (delivered with another place than the publisher was told, or than another client saw), `unknown`
 *   (nobody published it).
 */
export function inspect(ledger, journal, places = new Map()) {
  const client = new Client(ledger, journal, places);
  for (const fact of journal.facts) client[fact.kind](fact);
  client.close();
  const { found } = client;
  return { name: journal.name, delivered: client.seen.size, tellings: journal.tellings.length, lost: [...found.untold, ...found.told], ...found };
}

/** The reports of all clients. Places are compared between them. */
export function inspectAll(ledger, journals) {
  const places = new Map();
  return journals.map((journal) => inspect(ledger, journal, places));
}

class Client {
  found = { told: [], ...Object.fromEntries(FAULTS.map((kind) => [kind, []])) };
  /** How often each event came, and when first. */
  seen = new Map();
  /** Rooms whose events may come, and those that must: room -> the `in` fact. */
  possible = new Set();
  certain = new Map();
  /** Spans of time in a room that are over. */
  spans = [];
  /** The last place in each scope, the epochs behind it, and the last event of each publisher. */
  last = new Map();
  tellings = [];

  constructor(ledger, journal, places) {
    Object.assign(this, { ledger, journal, places });
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

  told(fact) {
    this.tellings.push(fact);
    this.#restart(fact);
  }

  fresh(fact) {
    this.#restart(fact);
  }

  /** For readers of a journal. */
  recovered() {}

  error(fact) {
    this.#fault("unknown", fact, `${fact.code}: ${fact.message}`);
  }

  #restart(fact) {
    for (const room of fact.rooms ?? [...this.possible]) {
      this.#end(room, "told", fact);
      this.possible.delete(room);
    }
  }

  #end(room, how, fact) {
    const begun = this.certain.get(room);
    if (!begun) return;
    this.certain.delete(room);
    this.spans.push({ room, begun, how, ended: fact, last: this.#lastOf(room)?.at });
  }

  close() {
    for (const [room, begun] of this.certain) this.spans.push({ room, begun, how: "still in" });
    for (const event of this.ledger.events) this.#expect(event);
  }

  // ---- what came

  event(fact) {
    const event = this.ledger.events[fact.n];
    if (!event) return this.#fault("unknown", fact, "nobody published it");
    this.#checkEntitled(event, fact);
    this.#checkPlace(event, fact);
    this.#checkOrder(event, fact);
    const before = this.seen.get(fact.n);
    if (!before) this.seen.set(fact.n, { first: fact });
    else if (!this.#mayRepeat(event, before.first)) this.#fault("doubled", fact, `first at ${before.first.offset}`);
  }

  /** A publisher that did not hear of the first attempt tried again, and the log lost the first: the client was told. */
  #mayRepeat(event, first) {
    return event.attempts > 1 && this.tellings.some(({ tick }) => tick > first.tick);
  }

  #checkEntitled(event, fact) {
    if (!event.rooms.some((room) => this.possible.has(room))) return this.#fault("unentitled", fact, `in none of ${event.rooms}`);
    if (fact.room !== undefined && !event.rooms.includes(fact.room)) return this.#fault("unentitled", fact, `sent as of ${fact.room}`);
    const excepted = event.except.find((room) => this.certain.get(room)?.tick < event.sent.tick);
    if (excepted) this.#fault("unentitled", fact, `excepted by ${excepted}`);
  }

  #checkPlace(event, fact) {
    if (!fact.at) return this.#fault("misplaced", fact, "no offset");
    if (event.volatile) return;
    if (event.at && event.attempts === 1 && event.at.id !== fact.at.id) this.#fault("misplaced", fact, `accepted at ${event.at.id}`);
    const place = `${fact.at.epoch}-${fact.at.id}`;
    const other = this.places.get(place);
    if (other !== undefined && other !== event.n) this.#fault("misplaced", fact, `${place} is also event ${other}`);
    this.places.set(place, event.n);
  }

  #scope = (room) => (this.journal.scope === "room" ? room : "");
  #lastOf = (room) => this.last.get(this.#scope(room));

  #checkOrder(event, fact) {
    if (!fact.at) return;
    const scope = this.#scope(fact.room);
    const last = this.last.get(scope) ?? { epochs: new Set(), by: new Map() };
    if (last.at && last.at.epoch !== fact.at.epoch) {
      last.epochs.add(last.at.epoch);
      last.by.clear();
      if (last.epochs.has(fact.at.epoch)) return this.#fault("reordered", fact, `after ${last.offset}, a later epoch`);
    } else if (last.at && isBefore(fact.at, last.at)) {
      return this.#fault("reordered", fact, `after ${last.offset}`);
    }
    // One publisher waits for each answer: the log has its events in the order of their numbers.
    const settled = !event.volatile && event.state === "accepted" && event.attempts === 1;
    if (settled) {
      if (last.by.get(event.by) > event.n) return this.#fault("reordered", fact, `after event ${last.by.get(event.by)} of the same publisher`);
      last.by.set(event.by, event.n);
    }
    this.last.set(scope, { ...last, at: fact.at, offset: fact.offset });
  }

  // ---- what did not come

  #expect(event) {
    if (event.volatile || event.state !== "accepted" || this.seen.has(event.n)) return;
    const spans = this.spans.filter(({ room, begun }) => event.rooms.includes(room) && begun.tick < event.sent.tick);
    if (spans.length === 0 || this.#isExcepted(event)) return;
    const verdicts = spans.map((span) => this.#verdict(event, span));
    const kind = ["untold", "told"].find((one) => verdicts.includes(one));
    if (kind) this.#fault(kind, { n: event.n, offset: event.at?.id }, `rooms ${event.rooms}, by ${event.by}`);
  }

  /** Who is, or may be, in an excepted room need not get it. */
  #isExcepted(event) {
    return this.journal.facts.some(({ kind, room }) => (kind === "asked" || kind === "in") && event.except.includes(room));
  }

  #verdict(event, { room, how, ended, last, begun }) {
    if (how === "still in") return "untold";
    if (how === "left") {
      // What the log has after the last event seen may have come to a node after the room was left.
      const due = event.sent.tick < ended.tick && last && event.at && isBefore(event.at, last);
      return due ? "untold" : "not due";
    }
    if (event.sent.tick > ended.tick) return "not due";
    return this.#toldTooLate(event, room, begun, ended) ? "untold" : "told";
  }

  /** Something from behind the hole came, and a long time passed until the client was told. */
  #toldTooLate(event, room, begun, told) {
    if (!event.at) return false;
    const behind = this.journal.facts.find((fact) => this.#isBehind(fact, event, room, begun));
    return behind !== undefined && told.ms - behind.ms > TELL_WITHIN;
  }

  /**
   * Only places of one life of the log can be compared, and what was accepted does not tell its life: XADD never, and a
   * node that has not looked at the new master yet the one before. But it is no older than the last attempt.
   */
  #isBehind(fact, event, room, begun) {
    if (fact.kind !== "event" || fact.tick < Math.max(begun.tick, event.tried.tick) || !fact.at || this.#scope(fact.room) !== this.#scope(room)) return false;
    const came = this.ledger.events[fact.n];
    return came && !came.volatile && isBefore(event.at, fact.at);
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
    return [`  ${report.name}: ${report[kind].length} ${kind} of ${report.delivered} delivered, told ${report.tellings} times`, ...few].join("\n");
  })).join("\n");
}
