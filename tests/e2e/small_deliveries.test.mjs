// Events for few clients, while clients join and leave all the time: whichever thread writes them, a room's member gets each
// event behind its join once and in order, and none from before it.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { parsePlace } from "../harness/lines.mjs";
import { command, published } from "../harness/publish.mjs";
import { chance, SEED } from "../harness/random.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { PATIENT } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const CLIENTS = 24;
const ROOMS = Array.from({ length: 8 }, (_, n) => `room:${n}`);
const STAYS = 40;
const PUBLISHERS = 3;
const SPEAKERS = 12;
const WORDS = 30;
const rules = { rooms: [{ match: "room:<name>", join: "allow" }], limits: { joins_per_second: 1000, events_per_second: 1000 } };

/** The positions in an offset by their line, each as one number that can be compared; that of its event comes first. */
const places = (offset) => [...parsePlace(offset).values()].map(({ line, ms, seq }) => ({ line, at: (ms << 32n) + seq }));

/** Joins a random room, stays for some events or a moment, leaves, and again; by itself or by a command of the backend. */
async function wander(node, client, user, random) {
  for (let stay = 0; stay < STAYS; stay += 1) {
    const room = random.pick(ROOMS);
    const from = client.messages.length;
    const since = (type) => until(() => client.messages.slice(from).some((message) => message.type === type && message.room === room), () => `${type} ${room}`);
    const byCommand = random.next() < 0.3;
    if (byCommand) assert.equal((await command(node, "/join", { user, rooms: [room] })).status, 200);
    else client.send({ type: "join", room });
    await since("joined");
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 40)));
    // The last stay lasts.
    if (stay + 1 === STAYS) return;
    if (byCommand) assert.equal((await command(node, "/leave", { user, rooms: [room] })).status, 200);
    else client.send({ type: "leave", room });
    await since("left");
  }
}

async function publishUntil(node, isOver, random, all) {
  while (!isOver()) {
    // Few, many, and one for several rooms.
    const rooms = random.next() < 0.1 ? ROOMS.slice(0, 1 + random.below(ROOMS.length)) : [random.pick(ROOMS)];
    const count = random.next() < 0.1 ? 12 : 1;
    const events = Array.from({ length: count }, () => ({ rooms, event: "tick", data: rooms.length }));
    const results = await published(node, { events });
    for (const { offset } of results) all.push({ ...places(offset)[0], rooms });
    await new Promise((resolve) => setTimeout(resolve, random.between(0, 8)));
  }
}

/** The events of each stay of a client are those that were published behind its beginning, without a hole, to its end: on each line. */
function assertStays({ messages }, published) {
  const stays = new Map();
  const last = new Map();
  const close = (room, mayMiss) => {
    const { from, got } = stays.get(room);
    stays.delete(room);
    for (const { line, at } of from) {
      const due = published.filter((event) => event.rooms.includes(room) && event.line === line && event.at > at);
      const came = got.filter((event) => event.line === line).map((event) => event.at);
      // Those that name an earlier room of the client came by that.
      const expected = mayMiss ? due.slice(0, came.length) : due;
      assert.deepEqual(came, expected.map((event) => event.at), `${room} from ${line}/${at}`);
    }
  };
  for (const message of messages) {
    if (message.type === "joined") stays.set(message.room, { from: places(message.offset), got: [] });
    if (message.type === "left") close(message.room, true);
    if (message.type !== "event") continue;
    const [event] = places(message.offset);
    assert.ok(event.at > (last.get(event.line) ?? -1n), `${event.at} after ${last.get(event.line)}`);
    last.set(event.line, event.at);
    stays.get(message.room).got.push(event);
  }
  assert.equal(stays.size, 1);
  for (const room of stays.keys()) close(room, false);
}

suite("small deliveries", () => {
  for (const kind of ["memory", "Redis"]) {
    scenario(`a member gets exactly what was published behind its join, with a log in ${kind} (FAULT_SEED=${SEED})`, async (started) => {
      const redis = kind === "Redis" && { redis: { url: (await started.redis()).url, timeout: PATIENT } };
      const node = await started.node({ ...rules, ...redis });
      const clients = await Promise.all(
        Array.from({ length: CLIENTS }, async (_, n) => ({ user: `u${n}`, client: await started.ws(node, { token: tokenFor(`u${n}`) }).welcomed() })),
      );
      const [all, state] = [[], { over: false }];
      const publishers = Array.from({ length: PUBLISHERS }, (_, n) => publishUntil(node, () => state.over, chance(`publisher ${n}`), all));
      const wandering = Promise.all(clients.map(({ user, client }, n) => wander(node, client, user, chance(`client ${n}`))));
      await Promise.all([wandering.finally(() => (state.over = true)), ...publishers]);
      const [end] = places(await published(node, { rooms: ROOMS, event: "end", data: 0 }));
      all.push({ ...end, rooms: ROOMS });
      for (const { client } of clients) await client.event("end");
      all.sort((a, b) => (a.at < b.at ? -1 : 1));
      for (const { client } of clients) assertStays(client, all);
    });

    scenario(`what members and backends say at once comes to all in one order, to the sender before its answer, with a log in ${kind}`, async (started) => {
      const redis = kind === "Redis" && { redis: { url: (await started.redis()).url, timeout: PATIENT } };
      const say = { event: "say", emit: [{ room: "room:0", event: "said", args: ["{0}"], include_caller: true }], ack: ["{0}"] };
      const node = await started.node({ ...rules, ...redis, on: [say] });
      const join = (n) => started.ws(node, { token: tokenFor(`u${n}`, { rooms: ["room:0"] }) }).welcomed();
      const clients = await Promise.all(Array.from({ length: SPEAKERS }, (_, n) => join(n)));
      const speak = async (client, n) => {
        for (let word = 0; word < WORDS; word += 1) {
          const text = `${n} ${word}`;
          const answer = await client.ask({ type: "event", event: "say", data: text });
          assert.equal(answer.data, text);
          const before = client.messages.slice(0, client.messages.indexOf(answer));
          assert.ok(before.some((message) => message.data === text), `${text} comes before its answer`);
        }
      };
      const publish = async (n) => {
        for (let word = 0; word < WORDS; word += 1) await published(node, { room: "room:0", event: "said", data: `backend ${n} ${word}` });
      };
      await Promise.all([...clients.map(speak), ...Array.from({ length: PUBLISHERS }, (_, n) => publish(n))]);
      const total = WORDS * (SPEAKERS + PUBLISHERS);
      const said = (client) => client.messages.filter((message) => message.event === "said");
      await until(() => clients.every((client) => said(client).length === total), () => `${clients.map((client) => said(client).length)} of ${total}`);
      const offsets = said(clients[0]).map((message) => places(message.offset)[0].at);
      assert.deepEqual(offsets, offsets.toSorted((a, b) => (a < b ? -1 : 1)));
      for (const client of clients) assert.deepEqual(said(client), said(clients[0]));
      for (let n = 0; n < SPEAKERS; n += 1) {
        const own = said(clients[0]).map(({ data }) => data).filter((text) => text.startsWith(`${n} `));
        assert.deepEqual(own, Array.from({ length: WORDS }, (_, word) => `${n} ${word}`));
      }
    });
  }
});
