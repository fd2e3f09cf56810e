// 20 clients on every transport in 3 rooms, and 5,000 events from every source.
import assert from "node:assert/strict";
import { PARTITIONS } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const ROOMS = ["room:red", "room:green", "room:blue"];
const KINDS = ["websocket", "polling", "upgrade", "ws", "sse"];
const CLIENTS = 20;
const SINGLES = 800;
const BATCHES = 28;
const SAYERS = 10;
const SAID = 100;
const PER_BATCH = 100;
const TOTAL = SINGLES + BATCHES * PER_BATCH + 4 * PER_BATCH + SAYERS * SAID;
const LONG = 50_000;

const rules = {
  rooms: [{ match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "allow" }],
  on: [
    { event: "join", join: "room:{0}", ack: [{ ok: true }] },
    { event: "say", emit: [{ room: "room:{0}", event: "chat", args: ["{1}"], include_caller: true }], ack: [{ ok: true }] },
  ],
};

const idOf = { io: ({ name, args }) => name === "chat" && args[0], ws: ({ event, data }) => event === "chat" && data, sse: ({ name, data }) => name === "chat" && JSON.parse(data) };

/** A client of this kind in these rooms; `ids()` are the events it got, in order. */
async function join({ io, ws, sse }, node, kind, rooms, user) {
  const token = tokenFor(user);
  const ids = (list, read) => () => list.map(read).filter(Boolean);
  if (kind === "ws") {
    const client = await (await ws(node, { token }).welcomed()).join(...rooms);
    return { kind, rooms, client, ids: ids(client.messages, idOf.ws) };
  }
  if (kind === "sse") {
    const client = await sse(node, { token, rooms }).answered();
    return { kind, rooms, client, ids: ids(client.events, idOf.sse) };
  }
  const transports = kind === "upgrade" ? ["polling", "websocket"] : [kind];
  const client = await (await io(node, { token, transports }).connected()).join(...rooms);
  return { kind, rooms, client, ids: ids(client.events, idOf.io) };
}

const room = (n) => ROOMS[n % ROOMS.length];
const event = (publisher, n) => ({ room: room(n), event: "chat", data: `${publisher}/${room(n)}/${n}` });

async function singles(node) {
  for (let n = 0; n < SINGLES; n += 1) await published(node, event("single", n));
}
async function batches(node) {
  for (let b = 0; b < BATCHES; b += 1) {
    const events = Array.from({ length: PER_BATCH }, (_, n) => event("batch", b * PER_BATCH + n));
    const results = await published(node, { events });
    assert.ok(results.every((result) => result.offset));
  }
}
async function lines(node) {
  for (let b = 0; b < 4; b += 1) {
    const text = Array.from({ length: PER_BATCH }, (_, n) => JSON.stringify(event("line", b * PER_BATCH + n))).join("\n");
    await published(node, text, { headers: { "content-type": "application/x-ndjson" } });
  }
}
async function say(guest, name) {
  for (let n = 0; n < SAID; n += 1) {
    const target = guest.rooms[n % guest.rooms.length];
    assert.deepEqual(await guest.client.ask("say", target.slice("room:".length), `${name}/${target}/${n}`), [{ ok: true }]);
  }
}

/** What has one order: everything, or with partitions each room. */
const scopes = PARTITIONS > 1 ? ROOMS.map((room) => (id) => id.split("/")[1] === room) : [() => true];

/** The events of each publisher are in the publisher's order. */
function assertPublishersOrder(ids) {
  const last = new Map();
  for (const id of ids) {
    const [publisher, , n] = id.split("/");
    assert.ok(Number(n) > (last.get(publisher) ?? -1), `${id} after ${last.get(publisher)}`);
    last.set(publisher, Number(n));
  }
}

async function chat(started, nodes) {
  const on = (n) => nodes[n % nodes.length];
  const witness = await join(started, nodes[0], "ws", ROOMS, "witness");
  const guests = await Promise.all(Array.from({ length: CLIENTS }, (_, n) => {
    const rooms = n % 4 === 0 ? [room(n), room(n + 1)] : [room(n)];
    return join(started, on(n), KINDS[n % KINDS.length], rooms, `user${n}`);
  }));
  const sayers = guests.filter(({ kind }) => kind !== "ws" && kind !== "sse").slice(0, SAYERS);
  assert.equal(sayers.length, SAYERS);
  await Promise.all([singles(on(0)), batches(on(1)), lines(on(0)), ...sayers.map((sayer, n) => say(sayer, `sayer${n}`))]);

  await until(() => witness.ids().length >= TOTAL, () => `${TOTAL} events, the witness has ${witness.ids().length}`, LONG);
  const all = witness.ids();
  assert.equal(TOTAL, 5000);
  assert.equal(all.length, TOTAL);
  assert.equal(new Set(all).size, TOTAL, "each event once");
  for (const scope of scopes) assertPublishersOrder(all.filter(scope));
  for (const guest of guests) {
    const theirs = all.filter((id) => guest.rooms.includes(id.split("/")[1]));
    await until(() => guest.ids().length >= theirs.length, () => `${guest.kind} has ${guest.ids().length} of ${theirs.length}`, LONG);
    assert.equal(guest.ids().length, theirs.length);
    for (const scope of scopes) assert.deepEqual(guest.ids().filter(scope), theirs.filter(scope), `${guest.kind} in ${guest.rooms}`);
  }
}

suite("20 clients on every transport, 3 rooms and 5,000 events", () => {
  scenario("every client gets each event of its rooms once, in one order: embedded log", async (started) => {
    await chat(started, [await started.node(rules)]);
  }, { timeout: 120_000 });

  scenario("every client gets each event of its rooms once, in one order: two nodes on one Redis", async (started) => {
    const { url } = await started.redis();
    const nodes = await Promise.all([1, 2].map(() => started.node({ ...rules, redis: { url } })));
    await chat(started, nodes);
  }, { timeout: 120_000 });
});
