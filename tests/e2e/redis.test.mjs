// Nodes on one Redis: each delivers what any of them publishes; and what happens while Redis is down.
import assert from "node:assert/strict";
import { stopwatch, until } from "../harness/deadline.mjs";
import { eventOf } from "../harness/lines.mjs";
import { redisClients } from "../harness/socketio_server.mjs";
import { assertError, command, publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const numbers = (client) => client.eventsOf("n").map(({ data }) => data);
const n = (data, more) => ({ room: "room:a", event: "n", data, ...more });
const member = async (ws, node, user = "7") => (await ws(node, { token: tokenFor(user) }).welcomed()).join("room:a");
const redisState = async (node) => {
  const answer = await node.get("/health");
  return [answer.status, answer.json().services.redis.status];
};

suite("Redis", () => {
  scenario("events published at either node reach clients of both, in one order, and so do client events", async ({ redis, node, io, ws, sse }) => {
    const { url } = await redis();
    const [a, b] = await Promise.all([node({ redis: { url } }), node({ redis: { url } })]);
    const clients = [await member(ws, a), await member(ws, b)];
    const stream = await sse(b, { token: tokenFor("8"), rooms: ["room:a"] }).answered();
    const socket = await (await io(b, { token: tokenFor("9") }).connected()).join("room:a");
    const many = (node, from) => Array.from({ length: 50 }, (_, i) => () => published(node, n(from + i)));
    const run = async (tasks) => { for (const task of tasks) await task(); };
    await Promise.all([run(many(a, 1000)), run(many(b, 2000))]);
    await socket.ask("say", "a", "by a client");
    await published(a, { room: "room:a", event: "v", data: 1, volatile: true });
    await Promise.all(clients.map((client) => client.event("v")));
    await published(a, { room: "room:a", event: "end", data: 1 });
    for (const client of clients) {
      await client.event("end");
      assert.deepEqual((await client.event("said")).args, ["9", "by a client"]);
    }
    await stream.event("end");
    await socket.event("end");
    const [first, second] = clients.map(numbers);
    assert.equal(first.length, 100);
    assert.deepEqual(second, first);
    assert.deepEqual(stream.eventsOf("n").map(({ data }) => Number(data)), first);
    assert.deepEqual(socket.argsOf("n").map(([number]) => number), first);
    for (const from of [1000, 2000]) {
      const own = first.filter((number) => number >= from && number < from + 1000);
      assert.deepEqual(own, own.toSorted((x, y) => x - y));
    }
  });

  scenario("a repeated id is published once, also through another node", async ({ redis, node, ws }) => {
    const { url } = await redis();
    const [a, b] = await Promise.all([node({ redis: { url } }), node({ redis: { url } })]);
    const client = await member(ws, b);
    const offsets = await Promise.all([a, b, a, b].map((where) => published(where, n(1, { id: "once" }))));
    assert.equal(new Set(offsets.map(eventOf)).size, 1, `${offsets}`);
    await published(a, { room: "room:a", event: "end", data: 1 });
    await client.event("end");
    assert.equal(eventOf((await client.event("n")).offset), eventOf(offsets[0]));
    assert.deepEqual(numbers(client), [1]);
  });

  scenario("an event added with XADD reaches both nodes, with every field", async ({ redis, node, ws, io }) => {
    const store = await redis();
    const [a, b] = await Promise.all([node({ redis: { url: store.url } }), node({ redis: { url: store.url } })]);
    const clients = [await member(ws, a), await member(ws, b)];
    const own = await io(b, { token: tokenFor("7") }).connected();
    const xadd = (...fields) => store.cli("XADD", "roomcast:events", "*", ...fields);
    const data = '{"id": 9007199254740993, "t":"\\u00e9é"}';
    await xadd("room", "room:a", "event", "new_message", "data", data);
    await xadd("rooms", '["room:a","user:7"]', "event", "two", "args", '[1,"2"]');
    await xadd("room", "user:7", "event", "not a", "data", "1", "except", '["room:a"]');
    await xadd("room", "room:a", "event", "empty");
    await xadd("room", "room:a", "event", "end", "data", "null");
    for (const client of clients) {
      await client.event("end");
      assert.deepEqual(client.eventsOf("two").map(({ args }) => args), [[1, "2"]]);
      assert.ok(client.texts.some((text) => text.includes(data)), "byte for byte");
      assert.equal(client.eventsOf("not a").length, 0);
      assert.equal(client.eventsOf("empty").length, 1);
    }
    assert.deepEqual(await own.event("not a"), [1]);
  });

  scenario("malformed entries are skipped, counted, logged with their id, and copied to the dead-letter stream", async ({ redis, node, ws }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const client = await member(ws, one);
    const bad = [
      ["room", "room:a", "data", "1"], ["event", "n", "data", "1"], ["room", "room:a", "event", "n", "data", "{"],
      ["room", "room:a", "event", "n", "args", "{}"], ["rooms", "room:a", "event", "n"], ["room", "", "event", "n"],
      ["room", "room:a", "event", "disconnect"], ["room", "room:a", "event", "n", "colour", "red"], ["x", "y"],
    ];
    const ids = [];
    for (const fields of bad) ids.push(await store.cli("XADD", "roomcast:events", "*", ...fields));
    const scripted = (event, data) => `return redis.call('XADD', KEYS[1], '*', 'room', 'room:a', 'event', ${event}, 'data', ${data})`;
    const notText = scripted("'\\255\\254'", "'1'");
    const tooBig = scripted("'n'", "'\"' .. string.rep('x', 1100000) .. '\"'");
    for (const script of [notText, tooBig]) ids.push(await store.cli("EVAL", script, "1", "roomcast:events"));
    await published(one, { room: "room:a", event: "end", data: 1 });
    await client.event("end");
    assert.deepEqual(numbers(client), []);
    await until(async () => Number(await store.cli("XLEN", "roomcast:dead")) === ids.length, "every malformed entry in the dead-letter stream");
    await one.metricIs('roomcast_drops_total{reason="malformed"}', ids.length);
    for (const id of ids) await one.says(id);
    assert.match(await store.cli("XRANGE", "roomcast:dead", "-", "+", "COUNT", "1"), /room:a/);
  });

  scenario("Redis hangs while a malformed entry is reported: it is still counted and copied, once", async (s) => {
    const store = await s.redis();
    const nodes = await Promise.all([0, 1].map(() => s.node({ redis: { url: store.url, timeout: "500ms" } })));
    const [client] = await redisClients(store.url, 1);
    s.serve({ close: () => client.destroy() });
    // The entry reaches the tails, and what they write about it waits longer than their timeout.
    await client.multi().xAdd("roomcast:events", "*", { x: "y" }).addCommand(["CLIENT", "PAUSE", "2000", "WRITE"]).exec();
    const counted = async () => (await Promise.all(nodes.map((node) => node.metric('roomcast_drops_total{reason="malformed"}')))).reduce((sum, n) => sum + n);
    await until(async () => (await counted()) > 0, "the entry counted");
    await until(async () => (await store.cli("XLEN", "roomcast:dead")) !== "0", "the entry copied");
    await until(async () => (await publish(nodes[0], { room: "room:a", event: "end", data: 1 })).status === 200, "publishes accepted");
    assert.deepEqual([await counted(), await store.cli("XLEN", "roomcast:dead")], [1, "1"]);
  });

  scenario("two prefixes on one Redis are separate", async ({ redis, node, ws }) => {
    const { url } = await redis();
    const [a, b] = await Promise.all(["one", "two"].map((prefix) => node({ redis: { url, prefix } })));
    const [inA, inB] = [await member(ws, a), await member(ws, b)];
    await published(a, n(1));
    await published(b, n(2));
    await Promise.all([inA.event("n"), inB.event("n")]);
    for (const where of [a, b]) await published(where, { room: "room:a", event: "end", data: 0 });
    await Promise.all([inA.event("end"), inB.event("end")]);
    assert.deepEqual([numbers(inA), numbers(inB)], [[1], [2]]);
  });

  scenario("Redis down at start: the node is live, answers 503, and recovers by itself", async ({ redis, node, ws }) => {
    const store = await redis({ start: false });
    const one = await node({ redis: { url: store.url, timeout: "1500ms" } }, { ready: false });
    assert.equal((await one.get("/health/live")).status, 200);
    assert.deepEqual(await redisState(one), [503, "connecting"]);
    assert.equal((await one.get("/socket/ping")).status, 503);
    assertError(await publish(one, n(1)), 503);
    assertError(await publish(one, n(1, { volatile: true })), 503);
    const batch = await publish(one, { events: [n(1), n(1)] });
    assertError(batch, 503);
    assert.ok(!batch.text.includes("offset"), "nothing accepted in part");
    assert.equal(await one.metric("roomcast_redis_up"), 0);
    await store.start();
    await until(() => one.answers("/health"), "ready by itself");
    assert.deepEqual(await redisState(one), [200, "ready"]);
    const client = await member(ws, one);
    await published(one, n(2));
    await client.event("n");
    assert.deepEqual(numbers(client), [2], "nothing that was answered 503");
    await until(() => one.answers("/socket/ping"), "a probe that goes through");
    await one.metricIs("roomcast_redis_up", 1);
  });

  scenario("Redis hangs: publishes and /health are answered 503 in time, clients stay connected, and nothing answered 200 is lost", async ({ redis, node, ws, io }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url, timeout: "1500ms" } });
    const client = await member(ws, one);
    const socket = await (await io(one, { token: tokenFor("8") }).connected()).join("room:a");
    await published(one, n(1));
    store.signal("SIGSTOP");
    const took = stopwatch();
    assertError(await publish(one, n(2)), 503);
    assert.ok(took() < 8_000, `after redis.timeout, not much later: ${took()} ms`);
    const [said] = await socket.ask("say", "a", "lost?");
    assert.match(said.error?.code ?? "", /^[a-z_]+$/, "a client's event is not acknowledged as sent");
    await until(() => one.answers("/health", 503), "/health answering 503");
    assert.equal((await one.get("/health/live")).status, 200);
    const ping = await one.get("/socket/ping");
    assert.equal(ping.status, 503);
    assert.match(ping.text, /log|append|redis|tail/i, "the failed stage is named");
    store.signal("SIGCONT");
    await until(() => one.answers("/health"), "ready by itself");
    await published(one, n(3));
    await client.message(({ data }) => data === 3);
    const got = numbers(client);
    assert.deepEqual(got.filter((number) => number !== 2), [1, 3]);
    assert.ok(got.filter((number) => number === 2).length <= 1, "at most once");
    assert.deepEqual([client.end, socket.disconnects], [undefined, []], "no client was disconnected");
  });

  scenario("Redis killed and restarted with its append-only file: nothing answered 200 is lost, and the order is kept", async ({ redis, node, ws, repeat }) => {
    const store = await redis({ durable: true });
    const [a, b] = await Promise.all([1, 2].map(() => node({ redis: { url: store.url } })));
    const clients = [await member(ws, a), await member(ws, b)];
    const accepted = [];
    let number = 0;
    const publisher = repeat(async () => {
      const answer = await publish(a, n((number += 1)));
      if (answer.status === 200) accepted.push(number);
      else assertError(answer, 503);
    });
    await until(() => accepted.length > 50, "50 events accepted", 60_000);
    await store.stop("SIGKILL");
    await until(() => a.answers("/health", 503), "/health answering 503");
    await store.start();
    const before = accepted.length;
    await until(() => accepted.length > before + 50, "50 events accepted after the restart", 60_000);
    await publisher.stop();
    await until(() => a.answers("/health"), "ready by itself");
    await published(a, { room: "room:a", event: "end", data: 1 });
    for (const client of clients) {
      await client.event("end");
      const got = numbers(client);
      assert.deepEqual(got, [...new Set(got)].toSorted((x, y) => x - y), "in order, each once");
      const lost = accepted.filter((number) => !got.includes(number));
      assert.deepEqual(lost, [], "answered 200 and lost");
      assert.equal(client.messages.filter(({ type }) => type === "gap").length, 0, "continuity can be proven");
    }
    assert.ok((await a.metric("roomcast_redis_reconnects_total")) > 0);
  });

  scenario("Redis restarted under an idle node: once an event goes through, so does a command, whose connection was idle", async ({ redis, node, ws }) => {
    const store = await redis({ durable: true });
    const one = await node({ redis: { url: store.url } });
    const client = await member(ws, one);
    for (let time = 0; time < 4; time += 1) {
      await store.stop("SIGKILL");
      await store.start();
      await until(async () => (await publish(one, n(time))).status === 200, "an event that goes through");
      await client.message(({ data }) => data === time);
      const answer = await command(one, "/disconnect", { user: "nobody" });
      assert.equal(answer.status, 200, answer.text);
    }
  });

  scenario("Redis restarted empty: clients are notified, and new events arrive", async ({ redis, node, ws, io }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const plain = await member(ws, one);
    const socket = await io(one, { token: tokenFor("8") }).connected();
    for (let number = 0; number < 5; number += 1) await published(one, n(number));
    await plain.message(({ data }) => data === 4);
    await store.stop("SIGKILL");
    await store.start();
    await until(() => one.answers("/health"), "ready by itself");
    await until(() => plain.end ?? plain.messages.some(({ type }) => type === "gap" || type === "closing"), "a gap message or a close");
    const again = await member(ws, one);
    await until(async () => (await publish(one, n(100))).status === 200, "publishes accepted");
    await again.event("n");
    await until(() => socket.socket.connected, "Socket.IO connected (again)");
    await published(one, { room: "user:8", event: "end", data: 1 });
    await socket.event("end");
  });

  scenario("Redis refuses writes: publishes are answered 503, and accepted again when it accepts writes", async ({ redis, node, ws }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const client = await member(ws, one);
    const faults = [
      [["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]],
      [["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]],
    ];
    for (const [number, [fall, heal]] of faults.entries()) {
      await store.cli(...fall);
      await until(async () => {
        const answer = await publish(one, n(-1));
        if (answer.status !== 200) assertError(answer, 503);
        return answer.status === 503;
      }, `503 after ${fall}`);
      await store.cli(...heal);
      await until(async () => (await publish(one, n(number))).status === 200, `200 after ${heal}`);
      await client.message(({ data }) => data === number);
    }
  });

  scenario("FLUSHALL: clients get new events or a gap message", async ({ redis, node, ws }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const client = await member(ws, one);
    await published(one, n(1));
    await client.event("n");
    await store.cli("FLUSHALL");
    await until(async () => (await publish(one, n(2))).status === 200, "publishes accepted");
    await until(() => client.end ?? client.messages.some(({ type, data }) => data === 2 || type === "gap"), "the event or the gap");
    const fresh = await member(ws, one);
    await until(async () => (await publish(one, n(3))).status === 200, "publishes accepted");
    await fresh.message(({ data }) => data === 3);
  });

  scenario("REDIS_URL, REDIS_HOST and ROOMCAST_REDIS__URL configure Redis", async ({ redis, node }) => {
    const store = await redis();
    for (const env of [{ REDIS_URL: store.url }, { REDIS_HOST: "127.0.0.1", REDIS_PORT: String(store.port) }, { ROOMCAST_REDIS__URL: store.url }]) {
      const one = await node({}, { env });
      assert.deepEqual(await redisState(one), [200, "ready"], Object.keys(env)[0]);
    }
  });
});
