// A log with partitions: clients of every kind, rooms of several partitions, and one line in trouble.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { crc32 } from "node:zlib";
import { until } from "../harness/deadline.mjs";
import { command, publish, published } from "../harness/publish.mjs";
import { startCluster } from "../harness/redis_cluster.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { PATIENT, nodesOn, reconnected, recorded } from "../harness/sessions.mjs";
import { storm } from "../harness/storm.mjs";
import { tokenFor } from "../harness/token.mjs";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const VECTORS = JSON.parse(fs.readFileSync(path.join(ROOT, "tests/vectors/partitions.json"), "utf8"));
const PARTITIONS = 8;
const WEBSOCKET = { transports: ["websocket"] };

const lineOf = (room) => (crc32(room) % PARTITIONS) + 1;
const streamOf = (line) => `roomcast:events:{${line}}`;
const epochOf = (line) => `${streamOf(line)}:epoch`;
/** Short names: `room:<name>` are in this many different partitions. */
const NAMES = ["a", "b", "c", "d", "e", "f"];
const isolated = NAMES.find((name) => NAMES.every((other) => other === name || lineOf(`room:${other}`) !== lineOf(`room:${name}`)));

const partitioned = (s, store, count, more = {}) => nodesOn(s, { url: store.url }, count, { redis: { url: store.url, partitions: PARTITIONS, timeout: PATIENT }, ...more });

/** A Socket.IO client of `a`, behind a balancer, and an event stream of `b` that has ended, which have seen an event of each of two rooms on different lines. */
async function twoWhoLeave(s, store, a, b) {
  const rooms = [`room:${isolated}`, `room:${NAMES.find((name) => name !== isolated)}`];
  const balancer = await s.proxy(a);
  const io = await s.io(balancer, { token: tokenFor("7"), ...WEBSOCKET }).connected();
  await io.join(...rooms);
  const stream = { token: tokenFor("9"), rooms };
  const sse = await s.sse(b, stream).answered();
  for (const room of rooms) await published(b, { room, event: "seen", data: 0 });
  await until(() => io.argsOf("seen").length === 2 && sse.eventsOf("seen").length === 2, "both have seen it");
  sse.close();
  await recorded(store, ...rooms);
  return { rooms, balancer, io, stream, sse };
}

suite("partitions", () => {
  scenario("rooms of several partitions, to clients of every kind: each event once and in the order of its room", async (s) => {
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    const io = await s.io(a, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    for (const name of NAMES) await io.join(`room:${name}`);
    const ws = await s.ws(b, { token: tokenFor("8") }).welcomed();
    for (const name of NAMES) {
      ws.send({ type: "join", room: `room:${name}` });
      await ws.message((message) => message.type === "joined" && message.room === `room:${name}`);
    }
    const sse = s.sse(b, { token: tokenFor("9"), rooms: NAMES.map((name) => `room:${name}`) });
    await until(() => sse.status === 200, "the stream");
    for (let n = 0; n < 20; n += 1) {
      const batch = NAMES.map((name) => JSON.stringify({ room: `room:${name}`, event: name, data: n }));
      await published(n % 2 ? a : b, batch.join("\n"), { headers: { "content-type": "application/x-ndjson" } });
    }
    await published(a, { rooms: NAMES.map((name) => `room:${name}`), event: "end", data: 0 });
    await io.event("end");
    await ws.message((message) => message.event === "end");
    await until(() => sse.events.some(({ name }) => name === "end"), "the end on the stream");
    const expected = Array.from({ length: 20 }, (_, n) => n);
    for (const name of NAMES) {
      assert.deepEqual(io.argsOf(name).map(([n]) => n), expected, name);
      assert.deepEqual(ws.messages.filter(({ event }) => event === name).map(({ data }) => data), expected, name);
      assert.deepEqual(sse.events.filter((event) => event.name === name).map(({ data }) => JSON.parse(data).data ?? JSON.parse(data)), expected, name);
    }
    assert.equal(io.argsOf("end").length, 1);
    const lengths = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((line) => store.cli("XLEN", streamOf(line))));
    assert.equal(lengths.map(Number).reduce((sum, length) => sum + length, 0) >= 120, true, `${lengths}`);
  });

  scenario("the offset of a publish is good for any room: who joins with it gets exactly what comes after, and knows repeats", async (s) => {
    const page = fs.readFileSync(path.join(ROOT, "docs/scaling.md"), "utf8");
    const [, code] = /```js\n(const eventOf[^]*?)```/.exec(page);
    const eventOf = new Function(`${code} return eventOf;`)();
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    const rooms = NAMES.map((name) => `room:${name}`);
    const ends = {};
    for (const [n, room] of rooms.entries()) {
      const other = rooms[(n + 1) % rooms.length];
      await published(a, { rooms: [room, other], event: "before", data: n });
      await published(a, { room, event: "before", data: n });
    }
    const since = await published(a, { room: rooms[0], event: "before", data: "it" });
    const own = [];
    for (const [n, room] of rooms.entries()) {
      const other = rooms[(n + 1) % rooms.length];
      own.push(await published(a, { room, event: "after", data: `${n}` }), await published(a, { rooms: [room, other], event: "after", data: `${n} both` }));
      ends[room] = [`${n}`, `${n} both`, `${(n + rooms.length - 1) % rooms.length} both`].sort();
    }
    for (const node of [a, b]) {
      for (const room of rooms) {
        const ws = await s.ws(node, { token: tokenFor("8") }).welcomed();
        ws.send({ type: "join", room, since });
        assert.equal((await ws.message((message) => message.type === "joined" && message.room === room)).recovered, true, room);
        const sse = await s.sse(node, { token: tokenFor("9"), rooms: [room], headers: { "last-event-id": since } }).answered();
        await until(() => ws.eventsOf("after").length === 3 && sse.events.length === 3, () => JSON.stringify([ws.messages, sse.events]));
        assert.deepEqual(ws.eventsOf("after").map(({ data }) => data).sort(), ends[room]);
        assert.deepEqual([ws.eventsOf("before"), sse.events.filter(({ name }) => name !== "after")], [[], []]);
      }
    }
    // The name of an event is the same for its publisher, on every connection, and in every room.
    const client = await s.ws(a, { token: tokenFor("8") }).welcomed();
    for (const room of [...rooms, rooms[0]]) client.send({ type: "join", room, since });
    await until(() => new Set(client.eventsOf("after").map(({ data }) => data)).size === own.length, "all events");
    const names = new Map(client.eventsOf("after").map(({ data, offset }) => [data, eventOf(offset)]));
    assert.deepEqual([...names.values()].sort(), own.map(eventOf).sort());
    assert.equal(new Set(names.values()).size, own.length);
    // A repeat of an id says only which event it was.
    const first = await published(a, { room: rooms[0], event: "once", id: "once" });
    const again = await published(b, { room: rooms[0], event: "once", id: "once" });
    assert.equal(again, eventOf(first));
    client.send({ type: "join", room: rooms[0], since: again, id: "again" });
    assert.equal((await client.message((message) => message.id === "again")).recovered, false);
  });

  scenario("a stock Socket.IO client that names the offset of a publish gets what comes after it on every line, and nothing of it twice", async (s) => {
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    const rooms = NAMES.map((name) => `room:${name}`);
    for (const room of rooms) await client.join(room);
    for (const room of rooms) await published(a, { room, event: "had", data: room });
    await until(() => client.argsOf("had").length === rooms.length, "the first events");
    balancer.freeze();
    for (const room of rooms) await published(a, { room, event: "before", data: room });
    const since = await published(a, { room: rooms[0], event: "before", data: "it" });
    for (const room of rooms) await published(a, { room, event: "after", data: room });
    await published(a, { rooms, event: "after", data: "all" });
    client.socket.auth = { token: tokenFor("7"), offset: since };
    balancer.target = b;
    balancer.cut();
    assert.equal(await reconnected(client, 2), true);
    await published(b, { rooms, event: "end", data: 0 });
    await client.event("end");
    assert.deepEqual(client.argsOf("after").map(([room]) => room).sort(), ["all", ...rooms].sort());
    assert.deepEqual([client.argsOf("before"), client.argsOf("had").length], [[], rooms.length]);
  });

  scenario("kill -9 of a node: a client in rooms of several partitions is recovered, with everything once and in order", async (s) => {
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    for (const name of NAMES) await client.join(`room:${name}`);
    for (const name of NAMES) await published(b, { room: `room:${name}`, event: name, data: 0 });
    await until(() => NAMES.every((name) => client.argsOf(name).length === 1), "the first events");
    await recorded(store, ...NAMES.map((name) => `room:${name}`));
    balancer.target = b;
    await a.stop("SIGKILL");
    for (let n = 1; n < 10; n += 1) {
      for (const name of NAMES) await published(b, { room: `room:${name}`, event: name, data: n });
      await published(b, { rooms: ["room:a", "room:b"], event: "both", data: n });
    }
    assert.equal(await reconnected(client, 2), true);
    await published(b, { room: "room:a", event: "end", data: 0 });
    await client.event("end");
    await until(() => NAMES.every((name) => client.argsOf(name).length >= 10), "everything that was missed");
    for (const name of NAMES) assert.deepEqual(client.argsOf(name).map(([n]) => n), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], name);
    assert.deepEqual(client.argsOf("both").map(([n]) => n), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  scenario("a node keeps only what its clients are in, and a storm after kill -9 reads each line a few times", async (s) => {
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    // Nobody is in these, in any partition.
    for (let room = 0; room < 100; room += 1) await published(b, { room: `nobody:${room}`, event: "unwanted", data: room });
    const rooms = 20;
    const kept = async (node) => Promise.all(["roomcast_window_events", "roomcast_window_rooms"].map((name) => node.metric(name)));
    const read = (node) => Promise.all(["wanted", "unwanted"].map((result) => node.metric(`roomcast_log_read_total{result="${result}"}`)));
    const arrived = async () => {
      await until(async () => (await kept(a))[0] === rooms, "the node with the clients keeps the events of their rooms, and no other");
      await until(async () => (await kept(b)).every((number) => number === 0), "the other node keeps nothing");
      await until(async () => (await read(b)).join() === `0,${rooms + 100}`, async () => `it read all of it; counted ${await read(b)}`);
      await until(async () => (await read(a)).join() === `${rooms},100`, async () => `what its clients are in is wanted; counted ${await read(a)}`);
    };
    await storm(s, store, [a, b], { count: 150, rooms, maxPasses: 5 * (PARTITIONS + 1), arrived });
  });

  scenario("/join and /leave take effect between the events of a publisher that waits, in every partition", async (s) => {
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    const client = await s.io(b, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    const ok = async (path, body) => assert.equal((await command(a, path, body)).status, 200);
    for (let n = 0; n < 5; n += 1) {
      for (const name of NAMES) {
        await published(a, { room: `room:${name}`, event: name, data: `before ${n}` });
        await ok("/join", { user: "7", room: `room:${name}` });
        await published(a, { room: `room:${name}`, event: name, data: `inside ${n}` });
        await ok("/leave", { user: "7", room: `room:${name}` });
        await published(a, { room: `room:${name}`, event: name, data: `after ${n}` });
      }
    }
    // To all of these rooms: what comes after the events of each.
    await published(a, { rooms: ["user:7", ...NAMES.map((name) => `room:${name}`)], event: "end", data: 0 });
    await client.event("end");
    const expected = [0, 1, 2, 3, 4].map((n) => `inside ${n}`);
    for (const name of NAMES) assert.deepEqual(client.argsOf(name).map(([text]) => text), expected, name);
  });

  scenario("a partition that lost entries: only clients with rooms in it get a gap signal", async (s) => {
    const store = await s.redis();
    const [node] = await partitioned(s, store, 1);
    const inside = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    await inside.join(`room:${isolated}`);
    const outside = await s.io(node, { token: tokenFor("8"), ...WEBSOCKET }).connected();
    const other = NAMES.find((name) => name !== isolated && lineOf(`room:${name}`) !== lineOf("user:8"));
    await outside.join(`room:${other}`);
    assert.notEqual(lineOf("user:8"), lineOf(`room:${isolated}`), "the test wants them apart");
    await store.cli("DEL", epochOf(lineOf(`room:${isolated}`)));
    assert.equal(await reconnected(inside, 2), false, "the client of that partition");
    await published(node, { room: `room:${other}`, event: "still", data: 1 });
    await outside.event("still");
    assert.equal(outside.connects, 1);
  });

  scenario("Redis restarts empty: what troubles all partitions is a line of the node's log, not one for each, and so is that they go on", async (s) => {
    const store = await s.redis();
    const [node] = await partitioned(s, store, 1);
    const lines = (what) => node.output.split("\n").filter((line) => what.test(line)).length;
    await store.stop("SIGKILL");
    await until(() => lines(/the tail is interrupted.*refused/), "the interruption in the log");
    await store.start();
    await until(() => lines(/the tail goes on/) && lines(/the log lost entries/), "the end of it in the log");
    await until(() => node.answers("/health"), "/health answering 200", 15_000);
    // One each, and another after each ten seconds, which a slow machine may need.
    for (const what of [/the tail is interrupted.*refused/, /appending(?: on a shard)? is interrupted/, /the tail goes on/, /the log lost entries/]) {
      assert.ok(lines(what) < PARTITIONS, `${lines(what)} × ${what}`);
    }
  });

  scenario("all of Redis is emptied: every client gets one gap signal, and later events", async (s) => {
    const store = await s.redis();
    const [node] = await partitioned(s, store, 1);
    const rooms = NAMES.map((name) => `room:${name}`);
    const io = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    for (const room of rooms) await io.join(room);
    const ws = await s.ws(node, { token: tokenFor("8") }).welcomed();
    for (const room of rooms) {
      ws.send({ type: "join", room });
      await ws.message((message) => message.type === "joined" && message.room === room);
    }
    const sse = await s.sse(node, { token: tokenFor("9"), rooms }).answered();
    for (const room of rooms) await published(node, { room, event: "before", data: room });
    await until(() => io.argsOf("before").length === rooms.length && ws.eventsOf("before").length === rooms.length && sse.events.length === rooms.length, "the events of before");
    await store.cli("FLUSHALL");
    const gaps = () => ws.messages.filter(({ type }) => type === "gap").map(({ room }) => room);
    await until(() => io.connects === 2 && gaps().length > 0 && sse.events.some(({ name }) => name === "gap"), "a gap signal for each client");
    assert.equal(io.socket.recovered, false);
    for (const room of rooms) await io.join(room);
    for (const room of rooms) await until(async () => (await publish(node, { room, event: "after", data: room })).status === 200, "published");
    await until(() => [io.argsOf("after"), ws.eventsOf("after"), sse.events.filter(({ name }) => name === "after")].every((events) => events.length >= rooms.length), "the events of after");
    assert.deepEqual(gaps().sort(), [...rooms, "user:8"].sort());
    assert.equal(sse.events.filter(({ name }) => name === "gap").length, 1);
    assert.equal(io.connects, 2);
  });

  scenario("a master that hangs in a Cluster: its rooms are refused, all others go on", async (s) => {
    const group = s.serve(await startCluster());
    const [node] = await partitioned(s, group, 1, { redis: { url: group.url, partitions: PARTITIONS, timeout: "2s" } });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    for (const name of NAMES) await client.join(`room:${name}`);
    const owner = async (stream) => {
      const slot = await group.slotOf(stream);
      return (await group.view()).find(({ slots }) => slots.some((range) => { const [from, to = from] = range.split("-").map(Number); return from <= slot && slot <= to; })).member;
    };
    const owners = Object.fromEntries(await Promise.all(NAMES.map(async (name) => [name, await owner(streamOf(lineOf(`room:${name}`)))])));
    const home = await owner("roomcast:events");
    const hung = NAMES.find((name) => owners[name] !== home);
    const fine = NAMES.find((name) => owners[name] !== owners[hung]);
    await owners[hung].cli("CLIENT", "PAUSE", "6000", "ALL");
    assert.equal((await publish(node, { room: `room:${hung}`, event: "late", data: 1 })).status, 503);
    await published(node, { room: `room:${fine}`, event: "now", data: 1 });
    await client.event("now");
    await until(async () => (await publish(node, { room: `room:${hung}`, event: "again", data: 1 })).status === 200, "the line works again");
    await client.event("again");
    assert.deepEqual(client.argsOf("late"), []);
    assert.equal(client.connects, 1);
  });

  scenario("a node with another number of partitions is not ready while the others are up, and takes over after them", async (s) => {
    const store = await s.redis();
    const [old] = await partitioned(s, store, 1);
    const client = await s.io(old, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    const offset = await published(old, { room: "user:7", event: "before", data: 1 });
    await client.event("before");
    const next = await s.node({ redis: { url: store.url, partitions: 4 } }, { ready: false });
    await until(async () => {
      const health = await next.get("/health");
      return health.status === 503 && health.text.includes("8/0") && health.text.includes("4/0");
    }, "the node says why it waits");
    assert.equal((await publish(next, { room: "user:7", event: "refused", data: 1 })).status, 503);
    await old.stop();
    await until(async () => (await next.get("/health")).status === 200, "the node takes over");
    const epochs = [offset, await published(next, { room: "user:7", event: "after", data: 1 })].map((text) => text.split("-")[0]);
    assert.notEqual(epochs[0], epochs[1], "another epoch");
  });

  scenario("the page's order: a publisher that waits sees its own order in each room", async (s) => {
    const page = fs.readFileSync(path.join(ROOT, "docs/scaling.md"), "utf8");
    const code = /```js\n(await publish[^]*?)```/.exec(page)[1];
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2, { rooms: [{ match: "chat:<n>", join: "allow" }, { match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "allow" }, { match: "closed:*", join: "deny" }] });
    const client = await s.ws(b, { token: tokenFor("7") }).welcomed();
    for (const room of ["chat:1", "chat:2"]) {
      client.send({ type: "join", room });
      await client.message((message) => message.type === "joined" && message.room === room);
    }
    const steps = new Function("publish", `return (async () => {${code}})()`);
    for (let round = 0; round < 20; round += 1) await steps((body) => published(a, { ...body, data: round }));
    await until(() => client.messages.filter(({ event }) => event === "c").length === 20, "all of them");
    const order = client.messages.filter(({ type }) => type === "event").map(({ event, data }) => `${event}${data}`);
    for (let round = 0; round < 20; round += 1) {
      assert.ok(order.indexOf(`a${round}`) < order.indexOf(`b${round}`) && order.indexOf(`b${round}`) < order.indexOf(`c${round}`), `${order}`);
    }
  });

  scenario("what was missed comes in the order of a publisher that waits, to clients of every kind and on another node", async (s) => {
    const store = await s.redis();
    const [a, b] = await partitioned(s, store, 2);
    const { rooms, balancer, io, stream, sse } = await twoWhoLeave(s, store, a, b);
    const [one, two] = rooms;
    balancer.target = b;
    await a.stop("SIGKILL");
    // More than a replay takes from the window at once.
    const rounds = 150;
    for (let round = 0; round < rounds; round += 1) {
      await published(b, { room: one, event: "a", data: round });
      await published(b, { rooms, event: "b", data: round });
      await published(b, { room: two, event: "c", data: round });
    }
    const inOrder = (got, kinds, what) => {
      const own = got.filter(([event]) => kinds.includes(event)).map(([event, round]) => `${event}${round}`);
      assert.deepEqual(own, Array.from({ length: rounds }, (_, round) => kinds.map((kind) => `${kind}${round}`)).flat(), what);
    };
    const ORDERS = [[one, ["a", "b"]], [two, ["b", "c"]]];
    assert.equal(await reconnected(io, 2), true);
    await until(() => io.argsOf("c").length === rounds && io.argsOf("b").length === rounds && io.argsOf("a").length === rounds, "all that Socket.IO missed");
    for (const [room, kinds] of ORDERS) inOrder(io.events.map(({ name, args }) => [name, args[0]]), kinds, `Socket.IO in ${room}`);
    const again = s.sse(b, { ...stream, headers: { "last-event-id": sse.events.at(-1).id } });
    await until(() => ["a", "b", "c"].every((name) => again.eventsOf(name).length === rounds), "all that the stream missed");
    for (const [room, kinds] of ORDERS) inOrder(again.events.map(({ name, data }) => [name, JSON.parse(data).data ?? JSON.parse(data)]), kinds, `a stream in ${room}`);
    const ws = await s.ws(b, { token: tokenFor("8") }).welcomed();
    for (const [room, kinds] of ORDERS) {
      const joined = await ws.ask({ type: "join", room, since: sse.events.at(-1).id });
      assert.equal(joined.recovered, true, JSON.stringify(joined));
      const got = () => ws.messages.filter((message) => message.type === "event" && message.room === room).map(({ event, data }) => [event, data]);
      await until(() => kinds.every((kind) => got().filter(([event]) => event === kind).length === rounds), `what a /ws client missed in ${room}`);
      inOrder(got(), kinds, `/ws in ${room}`);
    }
  });

  scenario("who breaks off in the middle of what was missed goes on there, on another node, with everything once and in the order of each room", async (s) => {
    const store = await s.redis();
    const nodes = await partitioned(s, store, 2);
    const [a] = nodes;
    const { rooms, balancer, io, stream, sse: begun } = await twoWhoLeave(s, store, a, a);
    const [one, two] = rooms;
    balancer.freeze();
    const rounds = 60;
    // More than the server writes at once.
    const filler = "x".repeat(20_000);
    for (let round = 0; round < rounds; round += 1) {
      await published(a, { room: one, event: "a", data: { round, filler } });
      await published(a, { rooms, event: "b", data: { round, filler } });
      await published(a, { room: two, event: "c", data: { round, filler } });
    }
    const total = 3 * rounds;
    const inOrder = (got, what) => {
      for (const kinds of [["a", "b"], ["b", "c"]]) {
        const own = got.filter(([event]) => kinds.includes(event)).map(([event, { round }]) => `${event}${round}`);
        assert.deepEqual(own, Array.from({ length: rounds }, (_, round) => kinds.map((kind) => `${kind}${round}`)).flat(), what);
      }
    };

    const missed = () => io.events.filter(({ name }) => "abc".includes(name)).map(({ name, args }) => [name, args[0]]);
    const recovered = [];
    io.socket.on("connect", () => recovered.push(io.socket.recovered));
    const stops = [20, 70, 130, Infinity];
    let broken = false;
    io.socket.on("disconnect", () => (broken = false));
    io.socket.onAny(() => {
      if (broken || missed().length < stops[0]) return;
      broken = true;
      stops.shift();
      balancer.target = nodes[stops.length % 2];
      // What is on its way is lost. The client still takes what it has read.
      io.socket.io.engine.transport.ws.terminate();
    });
    balancer.target = nodes[1];
    balancer.cut();
    await until(() => missed().length >= total, () => `all that Socket.IO missed; got ${missed().length} of ${total}`);
    inOrder(missed(), "Socket.IO");
    assert.deepEqual(recovered, [true, true, true, true]);

    const events = [];
    for (const [turn, stop] of [20, 50, 60, Infinity].entries()) {
      const sse = s.sse(nodes[(turn + 1) % 2], { ...stream, headers: { "last-event-id": (events.at(-1) ?? begun.events.at(-1)).id } });
      sse.request.on("response", (response) => response.on("data", () => sse.events.length >= stop && sse.close()));
      await until(() => sse.events.length >= Math.min(stop, total - events.length), () => `turn ${turn}: ${events.length} and ${sse.events.length} of ${total}`);
      sse.close();
      events.push(...sse.events);
    }
    inOrder(events.map(({ name, data }) => [name, JSON.parse(data).data ?? JSON.parse(data)]), "a stream");
    assert.equal(events.length, total);
  });

  scenario("the page's function agrees with the vectors", async () => {
    const page = fs.readFileSync(path.join(ROOT, "docs/scaling.md"), "utf8");
    const code = /```python\n([^]*?)```/.exec(page)[1];
    const vectors = VECTORS.filter(({ line, partitions }) => line > 0 && partitions > 1);
    assert.ok(vectors.length > 10);
    const check = `${code}\nimport json, sys\nprint(json.dumps([stream_of(v["room"], v["partitions"], v["segments"]) for v in json.load(sys.stdin)]))`;
    const process = run("python3", ["-c", check]);
    process.child.stdin.end(JSON.stringify(vectors));
    assert.deepEqual(JSON.parse((await process).stdout), vectors.map(({ line }) => streamOf(line)));
  });
});
