// The checker itself: it finds each kind of fault, and accepts each excuse.
import assert from "node:assert/strict";
import { test } from "node:test";
import { faultsOf, FAULTS, inspect, inspectAll } from "./checker.mjs";
import { Journal, History } from "./history.mjs";

const at = (n, epoch = "e1") => `${epoch}-${1000 + n}-0`;

function scene({ scope, rooms = ["a"] } = {}) {
  const history = new History();
  const client = new Journal("client", { scope });
  for (const room of rooms) client.in(room);
  const publish = (more = {}) => {
    const event = history.add({ by: "p", rooms: ["a"], ...more });
    event.attempts = 1;
    if (more.state !== "unknown") history.accepted(event, more.volatile ? undefined : more.at ?? at(event.n));
    return event.n;
  };
  const get = (n, offset = at(n), room) => client.event(n, offset, room ?? (scope === "room" ? "a" : undefined));
  const faults = () => {
    const report = inspect(history, client);
    return Object.fromEntries(["excused", ...FAULTS].filter((kind) => report[kind].length > 0).map((kind) => [kind, report[kind].map(({ n }) => n)]));
  };
  return { history, client, publish, get, faults };
}

test("no fault where every event is delivered once and in order", () => {
  const { publish, get, faults } = scene();
  for (let n = 0; n < 5; n += 1) get(publish());
  assert.deepEqual(faults(), {});
});

test("finds missing events in the middle, at the end, and where nothing was delivered", () => {
  const { publish, get, faults } = scene();
  const [first, , third] = [publish(), publish(), publish()];
  get(first);
  get(third);
  publish();
  assert.deepEqual(faults(), { lost: [1, 3] });
  const silent = scene();
  silent.publish();
  assert.deepEqual(silent.faults(), { lost: [0] });
});

test("a notice excuses what was sent before it, and nothing that was sent after it", () => {
  const { client, publish, get, faults } = scene();
  publish();
  client.notified("new session");
  client.in("a");
  const [, third] = [publish(), publish()];
  get(third);
  assert.deepEqual(faults(), { excused: [0], lost: [1] });
});

test("a notice for one room does not excuse another room", () => {
  const { client, publish, faults } = scene({ scope: "room", rooms: ["a", "b"] });
  publish();
  publish({ rooms: ["b"] });
  client.notified("gap", ["a"]);
  client.in("a");
  assert.deepEqual(faults(), { excused: [0], lost: [1] });
});

test("a notice that comes too long after an event from after the gap does not excuse the gap", () => {
  const { client, publish, get, faults } = scene();
  publish();
  const after = get(publish());
  const notice = client.notified("gap");
  notice.ms = after.ms + 2000;
  assert.deepEqual(faults(), { excused: [0] });
  notice.ms = after.ms + 4000;
  assert.deepEqual(faults(), { lost: [0] });
});

test("a notice is in time although an event with a higher id came long before: ids went back", () => {
  const { client, publish, get, faults } = scene();
  const before = get(publish({ at: at(60_000) }), at(60_000));
  publish({ at: at(1) });
  client.notified("epoch").ms = before.ms + 4000;
  assert.deepEqual(faults(), { excused: [1] });
});

test("a notice is in time although the missing event was first tried before an event of an older epoch", () => {
  const { history, client, publish, get, faults } = scene();
  const retried = publish({ state: "unknown" });
  const old = get(publish({ at: at(60_000) }), at(60_000));
  history.trying(history.events[retried]);
  history.accepted(history.events[retried], at(1));
  client.notified("epoch").ms = old.ms + 4000;
  assert.deepEqual(faults(), { excused: [retried] });
});

test("a notice where nothing is missing is not a fault, but it is counted", () => {
  const { history, client, publish, get } = scene();
  get(publish());
  client.notified("gap");
  const [report] = inspectAll(history, [client]);
  assert.equal(report.notices, 1);
  assert.equal(faultsOf([report], [...FAULTS, "missing"]), "");
});

test("an event of unknown state may come or not, but only once and in order", () => {
  const { publish, get, faults } = scene();
  const [first, second] = [publish({ state: "unknown" }), publish({ state: "unknown" })];
  publish({ state: "unknown" });
  get(second);
  assert.deepEqual(faults(), {});
  get(second);
  assert.deepEqual(faults(), { duplicated: [1] });
  get(first);
  assert.deepEqual(faults(), { duplicated: [1], reordered: [0] });
});

test("finds duplicates, also after a notice, unless the publisher had to try again", () => {
  for (const [attempts, expected] of [[1, { duplicated: [0] }], [2, {}]]) {
    const { history, client, publish, get, faults } = scene();
    history.events[publish()].attempts = attempts;
    get(0);
    client.notified("new session");
    client.in("a");
    get(0, at(7, "e2"));
    assert.deepEqual(faults(), attempts === 1 ? { ...expected, wrongOffset: [0] } : expected);
  }
  const repeated = scene();
  repeated.history.events[repeated.publish()].attempts = 2;
  repeated.get(0);
  repeated.get(0);
  assert.deepEqual(repeated.faults(), { duplicated: [0] });
});

test("finds events out of order within an epoch, and from an older epoch", () => {
  const { client, publish, get, faults } = scene();
  const events = [publish(), publish(), publish(), publish()];
  get(events[1]);
  get(events[0]);
  client.notified("epoch");
  client.in("a");
  get(events[2], at(2, "e2"));
  assert.deepEqual(faults(), { excused: [3], reordered: [0] });
  get(events[3], at(3, "e1"));
  assert.deepEqual(faults(), { reordered: [0, 3] });
});

test("ids may go back where a new epoch begins", () => {
  const { client, publish, get, faults } = scene();
  get(publish());
  client.notified("epoch");
  client.in("a");
  get(publish({ at: "e2-5-0" }), "e2-5-0");
  assert.deepEqual(faults(), {});
});

test("finds the events of one publisher out of order, whatever their offsets are", () => {
  const { publish, get, faults } = scene();
  publish({ at: at(9) });
  publish({ at: at(8) });
  get(1, at(8));
  get(0, at(9));
  assert.deepEqual(faults(), { reordered: [0] });
});

test("order holds within each room on /ws, and over all rooms elsewhere", () => {
  for (const [scope, expected] of [["room", {}], ["all", { reordered: [0] }]]) {
    const { publish, get, faults } = scene({ scope, rooms: ["a", "b"] });
    const [first, second] = [publish({ rooms: ["b"] }), publish()];
    get(second, at(1), "a");
    get(first, at(0), "b");
    assert.deepEqual(faults(), expected);
  }
});

test("finds offsets that are missing, or differ from the publisher's or another client's", () => {
  const { history, client, publish, get, faults } = scene();
  publish();
  get(0, at(3));
  get(publish(), "no offset");
  assert.deepEqual(faults(), { wrongOffset: [0, 1] });
  const other = new Journal("other");
  other.in("a");
  publish({ state: "unknown" });
  other.event(2, at(3));
  const reports = inspectAll(history, [client, other]);
  assert.deepEqual(reports[1].wrongOffset.map(({ n }) => n), [2]);
});

test("finds events of rooms that were not asked for, or were left", () => {
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

test("an event is not due in an excepted room, and a fault where it is delivered", () => {
  const { publish, get, faults } = scene({ rooms: ["a", "me"] });
  publish({ except: ["me"] });
  assert.deepEqual(faults(), {});
  get(0);
  assert.deepEqual(faults(), { unentitled: [0] });
  const other = scene();
  other.publish({ except: ["me"] });
  assert.deepEqual(other.faults(), { lost: [0] });
});

test("an event to several rooms is due once, and the room that it names must be one of them", () => {
  const { publish, get, faults } = scene({ scope: "room", rooms: ["a", "b"] });
  const n = publish({ rooms: ["a", "b"] });
  get(n, at(n), "a");
  assert.deepEqual(faults(), {});
  get(n, at(n), "b");
  assert.deepEqual(faults(), { duplicated: [0] });
  get(publish(), at(1), "b");
  assert.deepEqual(faults(), { duplicated: [0], unentitled: [1] });
});

test("in a room that was left, events before the last one seen were due, and later ones were not", () => {
  const { client, publish, get, faults } = scene();
  const [, second] = [publish(), publish(), publish()];
  get(second);
  client.leaving("a");
  client.out("a");
  publish();
  assert.deepEqual(faults(), { lost: [0] });
  client.asked("a");
  client.in("a");
  publish();
  assert.deepEqual(faults(), { lost: [0, 4] });
});

test("a volatile event is never due, but comes once, in order, and only to entitled clients", () => {
  const { publish, get, faults } = scene();
  publish({ volatile: true });
  const n = get(publish()) && publish({ volatile: true });
  get(n, at(1));
  assert.deepEqual(faults(), {});
  get(n, at(1));
  get(publish({ volatile: true, rooms: ["z"] }), at(1));
  get(publish({ volatile: true }), at(0));
  assert.deepEqual(faults(), { duplicated: [2], unentitled: [3], reordered: [4] });
});

test("a start without an offset to resume from excuses what came before, and is not a notice", () => {
  const { history, client, publish, faults } = scene();
  publish();
  client.fresh();
  client.in("a");
  publish();
  assert.deepEqual(faults(), { excused: [0], lost: [1] });
  assert.equal(inspect(history, client).notices, 0);
});

test("finds events that nobody published", () => {
  const { get, faults } = scene();
  get(99);
  assert.deepEqual(faults(), { unknown: [99] });
});

test("the report names the client, the event and the reason", () => {
  const { history, client, publish } = scene();
  publish();
  const text = faultsOf(inspectAll(history, [client]), FAULTS);
  assert.match(text, /client: 1 lost, 0 delivered, 0 notices\n {4}event 0 at 1000-0: rooms a, by p/);
});
