// A checker that cannot fail shows nothing: each kind of fault, and each excuse.
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultsOf, FAULTS, inspect, inspectAll } from "./checker.mjs";
import { Journal, Ledger } from "./ledger.mjs";

const at = (n, epoch = "e1") => `${epoch}-${1000 + n}-0`;

function scene({ scope, rooms = ["a"] } = {}) {
  const ledger = new Ledger();
  const client = new Journal("client", { scope });
  for (const room of rooms) client.in(room);
  const publish = (more = {}) => {
    const event = ledger.add({ by: "p", rooms: ["a"], ...more });
    event.attempts = 1;
    if (more.state !== "unknown") ledger.accepted(event, more.volatile ? undefined : more.at ?? at(event.n));
    return event.n;
  };
  const get = (n, offset = at(n), room) => client.event(n, offset, room ?? (scope === "room" ? "a" : undefined));
  const faults = () => {
    const report = inspect(ledger, client);
    return Object.fromEntries(["told", ...FAULTS].filter((kind) => report[kind].length > 0).map((kind) => [kind, report[kind].map(({ n }) => n)]));
  };
  return { ledger, client, publish, get, faults };
}

test("all delivered once, in order: nothing to say", () => {
  const { publish, get, faults } = scene();
  for (let n = 0; n < 5; n += 1) get(publish());
  assert.deepEqual(faults(), {});
});

test("missing: in the middle, at the end, all of it", () => {
  const { publish, get, faults } = scene();
  const [first, , third] = [publish(), publish(), publish()];
  get(first);
  get(third);
  publish();
  assert.deepEqual(faults(), { untold: [1, 3] });
  const silent = scene();
  silent.publish();
  assert.deepEqual(silent.faults(), { untold: [0] });
});

test("told: what was sent before is excused, what was sent after is not", () => {
  const { client, publish, get, faults } = scene();
  publish();
  client.told("new session");
  client.in("a");
  const [, third] = [publish(), publish()];
  get(third);
  assert.deepEqual(faults(), { told: [0], untold: [1] });
});

test("told of one room says nothing of another", () => {
  const { client, publish, faults } = scene({ scope: "room", rooms: ["a", "b"] });
  publish();
  publish({ rooms: ["b"] });
  client.told("gap", ["a"]);
  client.in("a");
  assert.deepEqual(faults(), { told: [0], untold: [1] });
});

test("told long after something from behind the hole: not told", () => {
  const { client, publish, get, faults } = scene();
  publish();
  const behind = get(publish());
  const told = client.told("gap");
  told.ms = behind.ms + 2000;
  assert.deepEqual(faults(), { told: [0] });
  told.ms = behind.ms + 4000;
  assert.deepEqual(faults(), { untold: [0] });
});

test("told soon, though what came long before lies behind it: ids have gone back", () => {
  const { client, publish, get, faults } = scene();
  const behind = get(publish({ at: at(60_000) }), at(60_000));
  publish({ at: at(1) });
  client.told("epoch").ms = behind.ms + 4000;
  assert.deepEqual(faults(), { told: [1] });
});

test("told soon, though it was first tried before an event that only an older life of the log had behind it", () => {
  const { ledger, client, publish, get, faults } = scene();
  const retried = publish({ state: "unknown" });
  const old = get(publish({ at: at(60_000) }), at(60_000));
  ledger.trying(ledger.events[retried]);
  ledger.accepted(ledger.events[retried], at(1));
  client.told("epoch").ms = old.ms + 4000;
  assert.deepEqual(faults(), { told: [retried] });
});

test("told of nothing that is missing is no fault, but counted", () => {
  const { ledger, client, publish, get } = scene();
  get(publish());
  client.told("gap");
  const [report] = inspectAll(ledger, [client]);
  assert.equal(report.tellings, 1);
  assert.equal(faultsOf([report], [...FAULTS, "lost"]), "");
});

test("unknown fate: may come or not, but once and in its place", () => {
  const { publish, get, faults } = scene();
  const [first, second] = [publish({ state: "unknown" }), publish({ state: "unknown" })];
  publish({ state: "unknown" });
  get(second);
  assert.deepEqual(faults(), {});
  get(second);
  assert.deepEqual(faults(), { doubled: [1] });
  get(first);
  assert.deepEqual(faults(), { doubled: [1], reordered: [0] });
});

test("twice: also after a telling, unless the publisher had to try again", () => {
  for (const [attempts, expected] of [[1, { doubled: [0] }], [2, {}]]) {
    const { ledger, client, publish, get, faults } = scene();
    ledger.events[publish()].attempts = attempts;
    get(0);
    client.told("new session");
    client.in("a");
    get(0, at(7, "e2"));
    assert.deepEqual(faults(), attempts === 1 ? { ...expected, misplaced: [0] } : expected);
  }
  const untold = scene();
  untold.ledger.events[untold.publish()].attempts = 2;
  untold.get(0);
  untold.get(0);
  assert.deepEqual(untold.faults(), { doubled: [0] });
});

test("order: by the log within an epoch, never back to an older epoch", () => {
  const { client, publish, get, faults } = scene();
  const events = [publish(), publish(), publish(), publish()];
  get(events[1]);
  get(events[0]);
  client.told("epoch");
  client.in("a");
  get(events[2], at(2, "e2"));
  assert.deepEqual(faults(), { told: [3], reordered: [0] });
  get(events[3], at(3, "e1"));
  assert.deepEqual(faults(), { reordered: [0, 3] });
});

test("order: ids that go back are fine behind a new epoch alone", () => {
  const { client, publish, get, faults } = scene();
  get(publish());
  client.told("epoch");
  client.in("a");
  get(publish({ at: "e2-5-0" }), "e2-5-0");
  assert.deepEqual(faults(), {});
});

test("order: of one publisher, whatever the offsets say", () => {
  const { publish, get, faults } = scene();
  publish({ at: at(9) });
  publish({ at: at(8) });
  get(1, at(8));
  get(0, at(9));
  assert.deepEqual(faults(), { reordered: [0] });
});

test("order: /ws resumes room by room", () => {
  for (const [scope, expected] of [["room", {}], ["all", { reordered: [0] }]]) {
    const { publish, get, faults } = scene({ scope, rooms: ["a", "b"] });
    const [first, second] = [publish({ rooms: ["b"] }), publish()];
    get(second, at(1), "a");
    get(first, at(0), "b");
    assert.deepEqual(faults(), expected);
  }
});

test("places: as the publisher was told, the same for all, and there", () => {
  const { ledger, client, publish, get, faults } = scene();
  publish();
  get(0, at(3));
  get(publish(), "no offset");
  assert.deepEqual(faults(), { misplaced: [0, 1] });
  const other = new Journal("other");
  other.in("a");
  publish({ state: "unknown" });
  other.event(2, at(3));
  const reports = inspectAll(ledger, [client, other]);
  assert.deepEqual(reports[1].misplaced.map(({ n }) => n), [2]);
});

test("entitled: only rooms that were asked for, until they are left", () => {
  const { client, publish, get, faults } = scene({ rooms: ["a", "b"] });
  get(publish({ rooms: ["c"] }));
  client.asked("c");
  get(publish({ rooms: ["c"] }));
  client.leaving("b");
  get(publish({ rooms: ["b"] }));
  client.out("b");
  get(publish({ rooms: ["b"] }));
  get(publish({ rooms: ["b", "a"] }));
  assert.deepEqual(faults(), { unentitled: [0, 3] });
});

test("entitled: not who is in an excepted room; and nobody misses it there", () => {
  const { publish, get, faults } = scene({ rooms: ["a", "me"] });
  publish({ except: ["me"] });
  assert.deepEqual(faults(), {});
  get(0);
  assert.deepEqual(faults(), { unentitled: [0] });
  const other = scene();
  other.publish({ except: ["me"] });
  assert.deepEqual(other.faults(), { untold: [0] });
});

test("entitled: an event to several rooms comes once; the room it names must be one of them", () => {
  const { publish, get, faults } = scene({ scope: "room", rooms: ["a", "b"] });
  const n = publish({ rooms: ["a", "b"] });
  get(n, at(n), "a");
  assert.deepEqual(faults(), {});
  get(n, at(n), "b");
  assert.deepEqual(faults(), { doubled: [0] });
  get(publish(), at(1), "b");
  assert.deepEqual(faults(), { doubled: [0], unentitled: [1] });
});

test("left: what lies before the last event seen was due, what comes after it was not", () => {
  const { client, publish, get, faults } = scene();
  const [, second] = [publish(), publish(), publish()];
  get(second);
  client.leaving("a");
  client.out("a");
  publish();
  assert.deepEqual(faults(), { untold: [0] });
  client.asked("a");
  client.in("a");
  publish();
  assert.deepEqual(faults(), { untold: [0, 4] });
});

test("volatile: never required, but once, in place, and only for those entitled", () => {
  const { publish, get, faults } = scene();
  publish({ volatile: true });
  const n = get(publish()) && publish({ volatile: true });
  get(n, at(1));
  assert.deepEqual(faults(), {});
  get(n, at(1));
  get(publish({ volatile: true, rooms: ["z"] }), at(1));
  get(publish({ volatile: true }), at(0));
  assert.deepEqual(faults(), { doubled: [2], unentitled: [3], reordered: [4] });
});

test("a beginning without a place to resume from excuses, and counts as no telling", () => {
  const { ledger, client, publish, faults } = scene();
  publish();
  client.fresh();
  client.in("a");
  publish();
  assert.deepEqual(faults(), { told: [0], untold: [1] });
  assert.equal(inspect(ledger, client).tellings, 0);
});

test("events of nobody", () => {
  const { get, faults } = scene();
  get(99);
  assert.deepEqual(faults(), { unknown: [99] });
});

test("the text names the client, the event and why", () => {
  const { ledger, client, publish } = scene();
  publish();
  const text = faultsOf(inspectAll(ledger, [client]), FAULTS);
  assert.match(text, /client: 1 untold of 0 delivered, told 0 times\n {4}event 0 at 1000-0: rooms a, by p/);
});
