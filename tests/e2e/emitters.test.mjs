// What Socket.IO's emitters and adapters publish on Redis reaches clients: by the real packages.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { Emitter } from "@socket.io/redis-emitter";
import Redis from "ioredis";
import { until, within } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { reconnected, recorded } from "../harness/sessions.mjs";
import { redisClients, startSocketIo } from "../harness/socketio_server.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };
const PYTHON = path.join(import.meta.dirname, "../.venv/bin/python");

/** Nodes on one Redis that subscribe to emitters; one of them holds the lease to copy events into the log. */
async function nodes({ redis, node }, count = 1, more = {}) {
  const store = await redis();
  const settings = { url: store.url, emitter_key: "socket.io", ...more };
  const all = await Promise.all(Array.from({ length: count }, () => node({ redis: settings, socketio: { namespaces: ["/", "/chat"] } })));
  await listening(store, settings.emitter_key ? count : 0);
  return [store, ...all];
}

const LEASE = "roomcast:{roomcast:events}:emitters";

async function listening(store, count) {
  await until(async () => (await store.cli("CLIENT", "LIST", "TYPE", "pubsub")).split(" psub=3 ").length > count, `${count} nodes subscribed`);
  await until(async () => (await store.cli("EXISTS", LEASE)) === "1", "a node with the lease");
}

/** Which of the nodes copies events into the log. It counts them when Redis has answered, which may be after clients have them. */
const copier = (nodes) =>
  until(async () => {
    const counts = await Promise.all(nodes.map((node) => node.metric('roomcast_events_total{source="emitter"}')));
    const at = counts.findIndex((count) => count > 0);
    if (at >= 0) assert.equal(counts.filter((count) => count > 0).length, 1, "one node copies");
    return at >= 0 && [at];
  }, "a node that copies");

/** A redis-emitter on node-redis; its connection is closed with the test. */
async function emitterOn(s, store) {
  const [client] = await redisClients(store.url, 1);
  s.keep({ close: () => client.destroy() });
  return new Emitter(client);
}

suite("Socket.IO emitters", () => {
  scenario("socketsJoin while no node has the session: with partitions too it is recovered, with what the room had from then on", async (s) => {
    const [store, a, b] = await nodes(s, 2, { partitions: 8 });
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    await published(b, { room: "user:7", event: "first", data: 0 });
    await client.event("first");
    await recorded(store, "user:7");
    await a.stop("SIGKILL");
    const emitter = await emitterOn(s, store);
    emitter.in("user:7").socketsJoin(["room:a", "room:b"]);
    await until(async () => (await store.cli("XRANGE", "roomcast:events", "-", "+")).includes("\norder\n"), "the command in the log");
    for (const room of ["room:a", "room:b"]) await published(b, { room, event: room, data: 1 });
    balancer.target = b;
    assert.equal(await reconnected(client, 2), true);
    for (const room of ["room:a", "room:b"]) assert.deepEqual(await client.event(room), [1]);
  });

  scenario("@socket.io/redis-emitter: rooms, except, broadcasts, namespaces, binary, dates, volatile events and numbers arrive", async (s) => {
    const [store, node] = await nodes(s);
    const emitter = await emitterOn(s, store);
    const a = await (await s.io(node, { token, ...WEBSOCKET }).connected()).join("room:a");
    const b = await (await s.io(node, { token: tokenFor("8"), ...WEBSOCKET }).connected()).join("room:a", "room:b");
    const chat = await s.io(node, { token: tokenFor("9"), namespace: "/chat", ...WEBSOCKET }).connected();
    const ws = await s.ws(node, { token: tokenFor("10") }).welcomed();

    emitter.emit("all", 1, "é", { a: [null, true, 1.5] });
    emitter.to("room:a").emit("to a", new Date(0), undefined, { gone: undefined });
    emitter.to(["room:a", "room:b"]).emit("to both", 2);
    emitter.in("room:a").except("room:b").emit("not b", 3);
    emitter.emit("bytes", Buffer.from([0, 255]), { n: Buffer.from([4]) });
    emitter.volatile.to("room:a").emit("volatile", 4);
    emitter.of("chat").emit("chat", 5);
    emitter.to("user:7").emit("own", 6);
    emitter.to(b.socket.id).emit("by id", 7);
    emitter.to("room:a").emit("", 8);
    emitter.to("room:a").emit(42, 9);
    emitter.emit("end");
    for (const client of [a, b]) await client.event("end");
    assert.deepEqual([await a.event(""), await a.event("42")], [[8], [9]], "an empty name, and a number as one");
    assert.deepEqual(await a.event("all"), [1, "é", { a: [null, true, 1.5] }]);
    assert.deepEqual(await a.event("to a"), ["1970-01-01T00:00:00.000Z", null, {}]);
    assert.deepEqual([a.argsOf("to both"), b.argsOf("to both")], [[[2]], [[2]]]);
    assert.deepEqual([a.argsOf("not b"), b.argsOf("not b")], [[[3]], []]);
    const [bytes, nested] = await b.event("bytes");
    assert.deepEqual([Buffer.from(bytes).toString("hex"), Buffer.from(nested.n).toString("hex")], ["00ff", "04"]);
    assert.deepEqual(await a.event("volatile"), [4]);
    assert.deepEqual([a.argsOf("own"), b.argsOf("own")], [[[6]], []]);
    assert.deepEqual([a.argsOf("by id"), b.argsOf("by id")], [[], [[7]]]);
    assert.deepEqual(await chat.event("chat"), [5]);
    assert.deepEqual([chat.argsOf("all"), a.argsOf("chat")], [[], []]);
    assert.deepEqual((await ws.event("all")).args, [1, "é", { a: [null, true, 1.5] }]);
    const order = a.events.map((event) => event.name).filter((name) => name !== "volatile");
    assert.deepEqual(order, ["all", "to a", "to both", "not b", "bytes", "own", "", "42", "end"]);
    await until(async () => (await node.metric('roomcast_events_total{source="emitter"}')) === 12, "twelve counted");
  });

  scenario("socketsJoin, socketsLeave and disconnectSockets are carried out in order with the events, also with ioredis", async (s) => {
    const [store, ...two] = await nodes(s, 2);
    const client = new Redis(store.url);
    s.keep({ close: () => client.disconnect() });
    const emitter = new Emitter(client);
    const [a, b] = await Promise.all(two.map((node, at) => s.io(node, { token: tokenFor(String(at)), ...WEBSOCKET }).connected()));
    emitter.in("user:0").socketsJoin("vip");
    emitter.to("vip").emit("first", 1);
    emitter.in(["user:0", "user:1"]).socketsJoin("vip");
    emitter.in(["user:0", "user:1"]).except("user:0").socketsJoin(["other"]);
    emitter.to("vip").emit("both", 2);
    emitter.to("other").emit("b alone", 3);
    emitter.in(a.socket.id).socketsLeave("vip");
    emitter.to("vip").emit("b again", 4);
    await b.event("b again");
    emitter.in("vip").disconnectSockets(true);
    assert.equal(await b.disconnected(), "io server disconnect");
    emitter.emit("end");
    await a.event("end");
    assert.deepEqual(a.events.map((event) => event.name), ["first", "both", "end"]);
    assert.deepEqual(b.events.map((event) => event.name), ["both", "b alone", "b again"]);
  });

  scenario("a client that was away recovers what emitters published, in order", async (s) => {
    const [store, node] = await nodes(s);
    const emitter = await emitterOn(s, store);
    const proxy = await s.proxy(node);
    const client = await (await s.io(proxy, { token, ...WEBSOCKET }).connected()).join("room:a");
    emitter.to("room:a").emit("before", 0);
    await client.event("before");
    const witness = await (await s.io(node, { token: tokenFor("8"), ...WEBSOCKET }).connected()).join("room:a");
    client.socket.io.reconnection(false);
    proxy.cut();
    await client.disconnected();
    for (let n = 1; n <= 20; n += 1) (n % 2 ? emitter.to("room:a") : emitter).emit("missed", n);
    await until(() => witness.argsOf("missed").length === 20, "twenty events in the log");
    client.socket.io.reconnection(true);
    client.socket.connect();
    await until(() => client.connects === 2, "back");
    assert.equal(client.socket.recovered, true);
    emitter.emit("end");
    await client.event("end");
    assert.deepEqual(client.argsOf("missed").flat(), Array.from({ length: 20 }, (_, at) => at + 1));
  });

  scenario("kill -9 of the node that copies: each of 6,000 events arrives once, also events with equal content", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const emitter = await emitterOn(s, store);
    const clients = await Promise.all([a, b].map((node) => s.io(node, { token, ...WEBSOCKET }).connected()));
    emitter.emit("n", 0);
    for (const client of clients) await client.event("n");
    const [at] = await copier([a, b]);
    const [holder, client] = [[a, b][at], clients[1 - at]];
    let [sent, killed] = [0, undefined];
    while (sent < 3000) {
      for (let burst = 0; burst < 10; burst += 1) {
        sent += 1;
        emitter.emit("n", sent);
        emitter.emit("tick");
      }
      // Once this is answered, Redis has published the events before it.
      await emitter.redisClient.ping();
      if (sent === 1000) killed = Date.now(), holder.stop("SIGKILL").catch(() => {});
    }
    emitter.emit("end");
    await client.event("end");
    console.log(`emitters: all of ${2 * sent} events came, the last ${Date.now() - killed} ms after the kill -9`);
    assert.deepEqual(client.argsOf("n").flat(), Array.from({ length: sent + 1 }, (_, at) => at));
    assert.equal(client.argsOf("tick").length, sent);
  });

  scenario("the node that copies: if it hangs, another takes over and its late writes are refused; if it stops, it hands over at once", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const emitter = await emitterOn(s, store);
    const clients = await Promise.all([a, b].map((node) => s.io(node, { token, ...WEBSOCKET }).connected()));
    emitter.emit("n", 0);
    for (const client of clients) await client.event("n");
    const [holder] = await copier([a, b]);
    const [hung, other] = [[a, b][holder], clients[1 - holder]];
    hung.signal("SIGSTOP");
    for (let n = 1; n <= 100; n += 1) emitter.emit("n", n);
    await until(() => other.argsOf("n").length === 101, () => `101 events; ${other.argsOf("n").length}`);
    hung.signal("SIGCONT");
    const third = await s.io(hung, { token, ...WEBSOCKET }).connected();
    emitter.emit("end");
    await other.event("end");
    await third.event("end");
    assert.deepEqual(other.argsOf("n").flat(), Array.from({ length: 101 }, (_, at) => at));
    const lease = await store.cli("GET", LEASE);
    await [a, b][1 - holder].stop();
    assert.notEqual(await store.cli("GET", LEASE), lease, "it is handed over, and not waited for until it ends");
    await until(async () => ![lease, ""].includes(await store.cli("GET", LEASE)), "another node with the lease");
    emitter.emit("after");
    await third.event("after");
  });

  scenario("subscriptions that break one after the other: an event that any node received arrives once", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const emitter = await emitterOn(s, store);
    const clients = await Promise.all([a, b].map((node) => s.io(node, { token, ...WEBSOCKET }).connected()));
    emitter.emit("n", 0);
    for (const client of clients) await client.event("n");
    const subscriptions = (await store.cli("CLIENT", "LIST", "TYPE", "pubsub")).split("\n").filter((line) => line.includes(" psub=3 "));
    let sent = 0;
    for (const subscription of subscriptions) {
      await store.cli("CLIENT", "KILL", "ID", /^id=(\d+) /.exec(subscription)[1]);
      for (let burst = 0; burst < 50; burst += 1) emitter.emit("n", (sent += 1));
      await emitter.redisClient.ping();
      // The next subscription breaks only when this one is back and the missed events have arrived.
      await listening(store, 2);
      for (const client of clients) await until(() => client.argsOf("n").length === sent + 1, () => `${sent + 1} events; ${client.argsOf("n").length}`);
    }
    emitter.emit("end");
    for (const client of clients) await client.event("end");
    for (const client of clients) {
      assert.deepEqual(client.argsOf("n").flat(), Array.from({ length: sent + 1 }, (_, at) => at));
    }
  });

  scenario("the rights of docs/redis.md are sufficient", async (s) => {
    const lines = fs.readFileSync(new URL("../../docs/redis.md", import.meta.url), "utf8").split("\n").filter((line) => line.startsWith("ACL SETUSER"));
    const store = await s.redis();
    for (const line of lines) await store.cli(...line.replace("PASSWORD", "secret").split(" "));
    const as = (user) => store.url.replace("redis://", `redis://${user}:secret@`);
    const node = await s.node({ redis: { url: as("roomcast"), emitter_key: "socket.io", streams_key: "socket.io" } });
    await listening(store, 1);
    await until(async () => (await store.cli("EXISTS", `${LEASE}:socket.io`)) === "1", "a stored stream position");
    const emitter = await emitterOn(s, { url: as("emitter") });
    const client = await s.io(node, { token, ...WEBSOCKET }).connected();
    emitter.in("user:7").socketsJoin("vip");
    emitter.to("vip").emit("heard");
    await client.event("heard");
    await store.cli("--user", "emitter", "--pass", "secret", "--no-auth-warning", "XADD", "socket.io", "*", "uid", "emitter", "nsp", "/", "type", "3", "data", '{"packet":{"type":2,"data":["read"]},"opts":{"rooms":["vip"]}}');
    await client.event("read");
    await node.stop();
    assert.equal(await store.cli("EXISTS", LEASE), "0", "the lease is released");
    assert.doesNotMatch(await store.cli("ACL", "LOG"), /^(roomcast|emitter)$/m);
  });

  scenario("a Socket.IO server with the Redis adapter broadcasts to roomcast's clients, and its own requests are not slowed down", async (s) => {
    const store = await s.redis();
    const servers = await Promise.all([1, 2].map(() => startSocketIo(store.url)));
    const [one, two] = servers;
    try {
      two.io.on("ping", (done) => done("pong"));
      const guest = s.io({ url: two.url }, WEBSOCKET);
      await guest.connected();
      const measure = async () => {
        const times = [];
        for (let turn = 0; turn < 20; turn += 1) {
          const begin = performance.now();
          assert.equal((await one.io.fetchSockets()).length, 1);
          assert.deepEqual(await within(new Promise((resolve, reject) => one.io.serverSideEmit("ping", (error, answers) => (error ? reject(error) : resolve(answers)))), "serverSideEmit"), ["pong"]);
          times.push(performance.now() - begin);
        }
        return times.sort((x, y) => x - y)[10];
      };
      const alone = await measure();
      const node = await s.node({ redis: { url: store.url, emitter_key: "socket.io" } });
      await listening(store, 1);
      const beside = await measure();
      console.log(`emitters: fetchSockets and serverSideEmit, median ${alone.toFixed(1)} ms alone, ${beside.toFixed(1)} ms beside roomcast`);
      // If the adapter counted roomcast as a server, each request would wait for its timeout of 20 s.
      assert.ok(beside < alone * 3 + 5_000, `${beside} ms against ${alone} ms`);
      const client = await (await s.io(node, { token, ...WEBSOCKET }).connected()).join("room:a");
      one.io.emit("all", 1);
      two.io.to("room:a").except("room:b").emit("to a", { two: 2 });
      one.io.to("room:a").emit("bytes", Buffer.from("ff", "hex"));
      one.io.in("room:a").socketsJoin("vip");
      one.io.to("vip").emit("vip");
      assert.deepEqual(await client.event("all"), [1]);
      assert.deepEqual(await client.event("to a"), [{ two: 2 }]);
      assert.equal(Buffer.from((await client.event("bytes"))[0]).toString("hex"), "ff");
      await client.event("vip");
      await guest.event("all");
      const answers = await within(one.io.timeout(10_000).emitWithAck("asked").catch((error) => error), "a broadcast with acknowledgements");
      assert.ok(answers, "it ends within its own timeout");
      await until(async () => (await node.metric('roomcast_events_refused_total{reason="ack_unsupported",source="emitter"}')) === 1, "the refusal is counted");
    } finally {
      for (const server of servers) await server.close();
    }
  });

  scenario("a Socket.IO server with the streams adapter, and entries of its emitter: each arrives once, also through kill -9 of the reading node", async (s) => {
    const [store, a, b] = await nodes(s, 2, { emitter_key: undefined, streams_key: "socket.io" });
    const server = await startSocketIo(store.url, "streams");
    try {
      const clients = await Promise.all([a, b].map((node) => s.io(node, { token, ...WEBSOCKET }).connected()));
      for (const client of clients) await client.join("room:a");
      await until(async () => (await store.cli("EXISTS", `${LEASE}:socket.io`)) === "1", "a stored stream position");
      server.io.emit("all", 1, { a: null });
      server.io.to("room:a").emit("bytes", Buffer.from("00ff", "hex"), new Date(0));
      server.io.in("room:a").socketsJoin("vip");
      server.io.to("vip").emit("vip");
      for (const client of clients) {
        assert.deepEqual(await client.event("all"), [1, { a: null }]);
        const [bytes, date] = await client.event("bytes");
        assert.deepEqual([Buffer.from(bytes).toString("hex"), date], ["00ff", "1970-01-01T00:00:00.000Z"]);
        await client.event("vip");
      }
      const [holder] = await copier([a, b]);
      const client = clients[1 - holder];
      const [writer] = await redisClients(store.url, 1);
      s.keep({ close: () => writer.destroy() });
      let killed;
      for (let n = 0; n < 300; n += 1) {
        const data = { packet: { type: 2, data: ["n", n], nsp: "/" }, opts: { rooms: [], flags: {}, except: [] } };
        await writer.sendCommand(["XADD", "socket.io", "MAXLEN", "~", "10000", "*", "uid", "emitter", "nsp", "/", "type", "3", "data", JSON.stringify(data)]);
        if (n === 100) killed = [a, b][holder].stop("SIGKILL");
      }
      await killed;
      await until(() => client.argsOf("n").length >= 300, () => `300 events; ${client.argsOf("n").length}`);
      server.io.emit("end");
      await client.event("end");
      assert.deepEqual(client.argsOf("n").flat(), Array.from({ length: 300 }, (_, at) => at));
      assert.equal(client.argsOf("all").length, 1);
    } finally {
      await server.close();
    }
  });

  scenario("python-socketio's write-only manager: its events arrive, and pickles of its old versions are refused", async (s) => {
    const [store, node] = await nodes(s, 1, { emitter_key: "socketio" });
    const client = await (await s.io(node, { token, ...WEBSOCKET }).connected()).join("room:a");
    assert.deepEqual((await command(node, "/join", { user: "7", room: "42" })).json(), { sessions: 1 });
    const python = spawn(PYTHON, [path.join(import.meta.dirname, "../harness/python_emitter.py"), store.url, "socketio"]);
    let errors = "";
    python.stderr.on("data", (chunk) => (errors += chunk));
    const exited = new Promise((resolve) => python.once("close", resolve));
    s.keep({ close: () => python.kill() });
    const lines = [["all", { a: 1 }, {}], ["to a", [1, 2], { room: "room:a" }], ["tuple", "tuple", { to: ["room:a", "room:b"] }], ["bytes", "bytes", {}], ["none", null, {}], ["skipped", 1, { skip_sid: client.socket.id }], ["to 42", 1, { room: 42 }], ["to several", 2, { room: ["x", 42.0] }], ["end", 1, {}]];
    python.stdin.end(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    assert.equal(await within(exited, () => `python: ${errors}`), 0, errors);
    await client.event("end");
    assert.deepEqual(await client.event("all"), [{ a: 1 }]);
    assert.deepEqual(await client.event("to a"), [[1, 2]]);
    assert.deepEqual(await client.event("tuple"), [1, "two"]);
    assert.equal(Buffer.from((await client.event("bytes"))[0]).toString("hex"), "00ff");
    assert.deepEqual(await client.event("none"), []);
    assert.equal(client.argsOf("skipped").length, 0);
    assert.deepEqual([await client.event("to 42"), await client.event("to several")], [[1], [2]], "a number names a room as its text does");
    const [raw] = await redisClients(store.url, 1);
    s.keep({ close: () => raw.destroy() });
    await raw.publish("socketio", Buffer.from("80049500", "hex"));
    await until(async () => (await node.metric('roomcast_events_refused_total{reason="pickle",source="emitter"}')) === 1, "the pickle counted");
    await node.says("never read");
  });

  scenario("hostile messages are counted and dropped", async (s) => {
    const [store, node] = await nodes(s);
    const emitter = await emitterOn(s, store);
    const client = await s.io(node, { token, ...WEBSOCKET }).connected();
    const [raw] = await redisClients(store.url, 1);
    s.keep({ close: () => raw.destroy() });
    const hostile = [Buffer.from("garbage"), Buffer.alloc(0), Buffer.from("ddffffffff", "hex"), Buffer.alloc(1 << 20, 0x91), Buffer.from("[".repeat(1 << 20)), Buffer.from([0xc1])];
    for (const message of hostile) await raw.publish("socket.io#/#", message);
    await raw.publish("socket.io#/#", JSON.stringify(["x", { type: 2, data: ["disconnect"] }, {}]));
    await raw.publish("socket.io-request#/#", "{");
    await raw.publish("socket.io#/#", JSON.stringify(["x", { type: 2, data: ["big", "x".repeat(3 << 20)] }, {}]));
    emitter.emit("end");
    await client.event("end");
    assert.deepEqual(client.events.map((event) => event.name), ["end"]);
    assert.equal(client.disconnects.length, 0);
    await node.metricIs('roomcast_drops_total{reason="malformed"}', hostile.length + 3);
  });
});
