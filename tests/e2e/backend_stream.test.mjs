// backend.stream: the backend reads its calls from a Redis stream.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { Redis as Client } from "ioredis";
import { until } from "../harness/deadline.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { Redis } from "../harness/redis.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const STREAM = "roomcast:inbox";
const DOCS = path.join(import.meta.dirname, "../../docs");
const rooms = [{ match: "user:{user}", join: "auto" }, { match: "chat:<id>", join: "allow" }];
const on = [
  { event: "send", forward: true, join: "chat:{0.id}", reply: { event: "sending", args: ["{0.id}"] }, ack: [{ queued: true }] },
  { event: "bare", forward: true },
  { event: "typing", emit: [{ room: "user:{user}", event: "user_typing", args: [1], include_caller: true, volatile: true }], ack: ["relayed"] },
];

/** A Redis, a node with backend.stream, and `entries()`, which reads the stream. */
async function stage(s, backend = {}, { store, url, redisTimeout, ...config } = {}) {
  store ??= await s.redis();
  const redis = { url: url ?? store.url, timeout: redisTimeout };
  const node = await s.node({ redis, rooms, on, backend: { stream: STREAM, notify: [], ...backend }, ...config });
  const entries = async () => {
    const list = await withClient(store, (client) => client.xrange(STREAM, "-", "+"));
    return list.map(([entry, fields]) => {
      assert.deepEqual([fields[0], fields[2], fields[4], fields.length], ["id", "type", "body", 6]);
      const call = JSON.parse(fields[5]);
      assert.deepEqual([call.id, call.type], [fields[1], fields[3]]);
      return { entry, ...call };
    });
  };
  return { store, node, entries };
}

async function withClient(store, act) {
  const client = new Client(store.port, "127.0.0.1", { maxRetriesPerRequest: 1 });
  try {
    return await act(client);
  } finally {
    client.disconnect();
  }
}

/** The reader of docs/backend.md as a process; `handle` is the source of its handle.js. */
class Reader {
  calls = [];
  errors = "";

  constructor(url, name, handle) {
    const [, text] = /\n```js\n(import \{ Redis \}.*?)\n```/s.exec(fs.readFileSync(path.join(DOCS, "backend.md"), "utf8"));
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-reader-"));
    fs.symlinkSync(path.join(import.meta.dirname, "../node_modules"), path.join(this.directory, "node_modules"));
    fs.writeFileSync(path.join(this.directory, "package.json"), '{"type":"module"}');
    fs.writeFileSync(path.join(this.directory, "handle.js"), handle);
    fs.writeFileSync(path.join(this.directory, "reader.js"), text.replace("60_000", "200").replace("5000", "100"));
    this.process = spawn(process.execPath, ["reader.js"], { cwd: this.directory, env: { PATH: process.env.PATH, REDIS_URL: url, HOSTNAME: name } });
    let rest = "";
    this.process.stdout.on("data", (chunk) => {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop();
      this.calls.push(...lines.map((line) => JSON.parse(line)));
    });
    this.process.stderr.on("data", (chunk) => (this.errors += chunk));
  }

  call = (matches) => until(() => this.calls.find(matches), () => `a call; got ${JSON.stringify(this.calls)} ${this.errors}`);

  close() {
    this.process.kill("SIGKILL");
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}
/** Handlers that print each call; the second one then hangs. */
const PRINTS = "export const handle = (call) => console.log(JSON.stringify(call));";
const HANGS = `${PRINTS.replace("console.log(JSON.stringify(call))", "new Promise(() => console.log(JSON.stringify(call)))")}`;

suite("backend.stream", () => {
  scenario("forward: the call is in the stream before the rule's ack (or []) is sent; join and reply are the rule's", async (s) => {
    const { store, node, entries } = await stage(s);
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("send", { id: 1, n: 1.5, big: 1e21 }), [{ queued: true }]);
    assert.deepEqual(await client.ask("bare", Buffer.from([1, 2, 3])), []);
    const plain = await s.ws(node, { token: tokenFor("8") }).welcomed();
    const ack = await plain.ask({ type: "event", event: "send", data: { id: 1 } });
    assert.deepEqual([ack.type, ack.data], ["ack", { queued: true }]);
    assert.deepEqual(await client.event("sending"), [1]);
    const [first, second, third, ...more] = await entries();
    assert.deepEqual([first.type, first.event, first.args, first.user, first.namespace, first.session], ["event", "send", [{ id: 1, n: 1.5, big: 1e21 }], "7", "/", client.socket.id]);
    assert.deepEqual([first.rooms, first.claims.sub, second.args, third.user, more], [["user:7"], "7", [{ $binary: "AQID" }], "8", []]);
    assert.equal(new Set([first.id, second.id, third.id]).size, 3);
    await published(node, { room: "chat:1", event: "n", data: 1 });
    await Promise.all([client.event("n"), plain.event("n")]);
    await until(async () => (await node.metric('roomcast_backend_requests_total{result="ok",type="event"}')) === 3, "three calls counted");
    const checked = new Daemon(["check", "--config", path.join(node.directory, "roomcast.toml")]);
    assert.equal((await checked.exited).code, 0, checked.output);
    assert.match(checked.output, /inbox: roomcast:inbox holds 3 of 100000 entries/);
    assert.match(checked.stdout, /^stream = "roomcast:inbox"$/m);
    await store.cli("DEL", STREAM);
    await store.cli("SET", STREAM, "not a stream");
    const [{ error }] = await client.ask("bare", 1);
    assert.equal(error.code, "backend_unavailable");
    await node.says("WRONGTYPE");
  });

  scenario("the reader of docs/backend.md gets each call once and in order, from two nodes, also what a dead reader had claimed", async (s) => {
    const [notify, presence] = [["connect", "disconnect", "online", "offline"], { grace: "100ms" }];
    const { store, node: one, entries } = await stage(s, { notify }, { presence });
    const { node: other } = await stage(s, { notify }, { store, presence });
    const dead = s.keep(new Reader(store.url, "dead", HANGS));
    const client = await s.io(one, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    const session = client.socket.id;
    // It hangs with the first call, which may be any of this client's.
    await dead.call(() => true);
    dead.close();
    const reader = s.keep(new Reader(store.url, "alive", PRINTS));
    await reader.call(({ type, session: of }) => type === "connect" && of === session);
    const polling = await s.io(other, { token: tokenFor("8"), transports: ["polling"] }).connected();
    for (let n = 0; n < 20; n += 1) {
      for (const sender of [client, polling]) assert.deepEqual(await sender.ask("bare", n), []);
    }
    const call = await reader.call(({ user, args }) => user === "8" && args?.[0] === 19);
    for (const user of ["7", "8"]) {
      const numbers = reader.calls.filter((call) => call.type === "event" && call.user === user).map(({ args }) => args[0]);
      assert.deepEqual(numbers, Array.from({ length: 20 }, (_, n) => n));
    }
    await published(one, { room: call.session, event: "answered", data: call.id, id: call.id });
    assert.deepEqual(await polling.event("answered"), [call.id]);
    await published(one, { room: "user:7", event: "end", data: 0 });
    await client.event("end");
    assert.equal(client.argsOf("answered").length, 0);
    client.socket.disconnect();
    const over = await reader.call(({ type }) => type === "disconnect");
    assert.deepEqual([over.session, over.reason], [session, "client close"]);
    const offline = await reader.call(({ type }) => type === "offline");
    assert.deepEqual([offline.user, typeof offline.last_seen, offline.session], ["7", "string", undefined]);
    await until(async () => (await entries()).length === 0, "handled entries are deleted");
    assert.equal(reader.errors, "");
  });

  scenario("Redis hangs: callers get an error in time, their calls are not added later, and a notice is added when Redis is back", async (s) => {
    const { store, node, entries } = await stage(s, { notify: ["disconnect"], timeout: "3s" }, { redisTimeout: "1s" });
    const [client, other, leaving] = await Promise.all(["7", "8", "9"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    assert.deepEqual(await client.ask("bare", "before"), []);
    store.signal("SIGSTOP");
    leaving.socket.disconnect();
    // Each call waits for its timeout, and the answers to others come before it does: nobody stands behind it.
    let waiting = true;
    const asked = client.ask("bare", "during").finally(() => (waiting = false));
    let passed = 0;
    while (waiting) {
      const [{ error }] = await other.ask("unknown", 1);
      assert.equal(error.code, "no_rule");
      if (waiting) passed += 1;
    }
    // Behind it, the first would have come with its answer.
    assert.ok(passed >= 2, `other events are not delayed: ${passed} answers`);
    const [{ error }] = await asked;
    assert.match(error.code, /^backend_(timeout|unavailable)$/);
    // After five failures, each of which takes the whole timeout.
    await until(async () => (await client.ask("bare", "during"))[0]?.error.message.includes("several times in a row"), "calls are paused", 40_000);
    store.signal("SIGCONT");
    await until(async () => (await client.ask("bare", "after")).length === 0, "added again");
    await until(async () => (await entries()).some(({ type }) => type === "disconnect"), "the notice");
    const found = await entries();
    // One that was added although its answer came too late is there besides the one that was answered.
    assert.deepEqual([...new Set(found.filter(({ type }) => type === "event").map(({ args }) => args[0]))], ["before", "after"]);
    assert.deepEqual(found.filter(({ type }) => type === "disconnect").map(({ user }) => user), ["9"]);
    assert.equal(client.disconnects.length + other.disconnects.length, 0);
  });

  scenario("Redis killed and restarted: acknowledged calls are in the stream, and a short outage delays a call without an error", async (s) => {
    const store = await s.redis({ durable: true });
    const { node, entries } = await stage(s, { notify: ["disconnect"], timeout: "18s" }, { store });
    const [client, leaving] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    assert.deepEqual(await client.ask("bare", 1), []);
    await store.stop("SIGKILL");
    const asked = client.ask("bare", 2);
    leaving.socket.disconnect();
    await store.start();
    assert.deepEqual(await asked, []);
    await until(async () => (await entries()).some(({ type }) => type === "disconnect"), "the notice");
    const found = await entries();
    assert.deepEqual(found.filter(({ type }) => type === "event").map(({ args }) => args[0]), [1, 2]);
    assert.equal(found.filter(({ type }) => type === "disconnect").length, 1);
  });

  scenario("a lost answer of Redis: the call is added again with the same id and acknowledged", async (s) => {
    const store = await s.redis();
    const proxy = await s.proxy(store);
    const { node, entries } = await stage(s, { timeout: "18s" }, { store, url: `redis://127.0.0.1:${proxy.port}/0` });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("bare", 1), []);
    // The node checks its connection once a second; a lost answer to that check must not be the first to time out.
    await until(async () => {
      proxy.mute();
      assert.deepEqual(await client.ask("bare", 2), []);
      return (await entries()).length !== new Set((await entries()).map(({ id }) => id)).size;
    }, "a call that was added twice");
    const found = await entries();
    const twice = found.filter(({ id }, at) => found.findIndex((entry) => entry.id === id) !== at);
    for (const { entry, ...repeat } of twice) {
      const { entry: first, ...original } = found.find(({ id }) => id === repeat.id);
      assert.deepEqual(repeat, original);
      assert.notEqual(first, entry);
    }
  });

  scenario("a full stream: calls are refused, counted and logged, nothing is trimmed, and notices wait until entries are deleted", async (s) => {
    const { store, node, entries } = await stage(s, { stream_limit: 3, notify: ["disconnect"] });
    const [client, leaving] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    for (const n of [1, 2, 3]) assert.deepEqual(await client.ask("bare", n), []);
    for (const n of [4, 5, 6, 7, 8, 9, 10]) {
      const [{ error }] = await client.ask("bare", n);
      assert.equal(error.code, "backend_full");
      assert.match(error.message, /3 entries wait/);
    }
    leaving.socket.disconnect();
    assert.deepEqual(await client.ask("typing"), ["relayed"]);
    await until(async () => (await node.metric('roomcast_backend_requests_total{result="full",type="disconnect"}')) > 0, "an attempt to add the notice");
    await until(async () => (await node.metric('roomcast_backend_requests_total{result="full",type="event"}')) === 7, "seven refusals counted");
    await until(() => /is full and requests are refused/.test(node.output), "the warning");
    assert.equal(node.output.match(/is full and requests are refused/g).length, 1);
    const found = await entries();
    assert.deepEqual(found.map(({ args }) => args[0]), [1, 2, 3]);
    await store.cli("XDEL", STREAM, ...found.map(({ entry }) => entry));
    assert.deepEqual(await client.ask("bare", 11), []);
    await until(async () => (await entries()).some(({ type, user }) => type === "disconnect" && user === "8"), "the notice");
    await until(() => /has room again/.test(node.output), "the end of the warning");
  });

  scenario("in a Redis Cluster the stream may be on another master than the log", async (s) => {
    const servers = [];
    for (const range of [["0", "8191"], ["8192", "16383"]]) {
      const server = s.serve(new Redis(await freePort(), { cluster: true }));
      await server.start();
      await server.cli("CLUSTER", "ADDSLOTSRANGE", ...range);
      servers.push(server);
    }
    const [one, other] = servers;
    await one.cli("CLUSTER", "MEET", "127.0.0.1", String(other.port), (await other.cli("CONFIG", "GET", "cluster-port")).split("\n")[1]);
    await until(async () => (await Promise.all(servers.map((server) => server.cli("CLUSTER", "INFO")))).every((info) => /cluster_state:ok/.test(info)), "a whole cluster");
    const slot = async (key) => Number(await one.cli("CLUSTER", "KEYSLOT", key));
    const lower = (await slot("roomcast:events")) < 8192;
    const stream = (await slot(STREAM)) < 8192 === lower ? "inbox:3" : STREAM;
    assert.notEqual((await slot(stream)) < 8192, lower, "on another master than the log");
    const redis = { url: `redis+cluster://127.0.0.1:${one.port},127.0.0.1:${other.port}` };
    const node = await s.node({ redis, rooms, on, backend: { stream, notify: [], timeout: "5s" } });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("bare", 1), []);
    assert.equal(await (lower ? other : one).cli("XLEN", stream), "1");
  });

  scenario("the rights of docs/redis.md are sufficient", async (s) => {
    const lines = fs.readFileSync(path.join(DOCS, "redis.md"), "utf8").split("\n").filter((line) => line.startsWith("ACL SETUSER"));
    const store = await s.redis();
    for (const line of lines) await store.cli(...line.replace("PASSWORD", "secret").split(" "));
    const as = (user) => store.url.replace("redis://", `redis://${user}:secret@`);
    const { node } = await stage(s, {}, { store, url: as("roomcast") });
    const reader = s.keep(new Reader(as("backend"), "api-1", PRINTS));
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("bare", 1), []);
    await reader.call(({ args }) => args[0] === 1);
    await until(async () => (await store.cli("XLEN", STREAM)) === "0", "the entry deleted");
    assert.doesNotMatch(await store.cli("ACL", "LOG"), /^(roomcast)$/m);
    assert.equal(reader.errors, "");
  });
});
