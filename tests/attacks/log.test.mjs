// A writer of the stream, with the least rights of docs/redis.md: chooses ids, floods the stream, adds what nobody reads.
// One test after the other, because a bystander is measured.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { until } from "../harness/deadline.mjs";
import { publish, published } from "../harness/publish.mjs";
import { RedisWriter } from "../harness/redis_writer.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const STREAM = "roomcast:events";
const LARGEST = "18446744073709551615-18446744073709551615";
const documented = fs.readFileSync(path.join(import.meta.dirname, "../../docs/redis.md"), "utf8");
const BACKEND = /ACL SETUSER backend on >PASSWORD (resetkeys %W~roomcast:events .*)/.exec(documented)[1].split(" ");
const event = (name, data) => ["room", "room:nobody", "event", name, "data", JSON.stringify(data)];
const tomorrow = () => `${Date.now() + 86_400_000}-0`;

/** A Redis, nodes on it, and a writer of its stream. */
async function stage(s, { redis = {}, nodes = 1 } = {}) {
  const store = await s.redis();
  await store.cli("ACL", "SETUSER", "backend", "on", ">pass", ...BACKEND);
  const writer = s.keep(await RedisWriter.connect(store, "backend", "pass"));
  const started = await Promise.all(Array.from({ length: nodes }, () => s.node({ redis: { url: store.url, ...redis } })));
  return { store, writer, nodes: started };
}

const renewals = async (nodes) => (await Promise.all(nodes.map((node) => node.metric("roomcast_log_renewals_total")))).reduce((a, b) => a + b);
const streamBytes = async (store) => Number(await store.cli("MEMORY", "USAGE", STREAM, "SAMPLES", "0"));

scenario("ids of tomorrow and the largest one: publishing and trimming go on, and a bystander misses nothing", async (s) => {
  const { store, writer, nodes } = await stage(s, { nodes: 2 });
  const bystander = await witness(s, nodes[0], { publisher: nodes[1] });
  const attack = async () => {
    for (let round = 1; round <= 6; round++) {
      const id = round % 2 ? LARGEST : tomorrow();
      await writer.send("XADD", STREAM, id, ...event("poison", round));
      await until(async () => (await renewals(nodes)) === round, `renewal ${round}`);
    }
  };
  await bystander.during(attack());
  bystander.unharmed();
  const offset = await published(nodes[0], { room: "room:a", event: "e" });
  assert.ok(Number(offset.split("-")[1]) < Date.now() + 60_000, `ids are of today: ${offset}`);
  const [last] = (await store.cli("XREVRANGE", STREAM, "+", "-", "COUNT", "1")).split("\n");
  assert.ok(Number(last.split("-")[0]) < Date.now() + 60_000, last);
  for (const node of nodes) {
    assert.equal((await node.get("/health")).status, 200);
    assert.equal(await node.metric('roomcast_gaps_total{reason="log_reset"}'), 0);
  }
});

scenario("a client that was away during a renewal is not recovered, and gets what comes", async (s) => {
  const { writer, nodes: [node] } = await stage(s);
  const client = await s.io(node, { token: tokenFor("7"), transports: ["websocket"] }).connected();
  await published(node, { room: "user:7", event: "e", data: 1 });
  await until(() => client.events.length === 1, "the first event");
  await writer.send("XADD", STREAM, LARGEST, ...event("poison", 1));
  await until(async () => (await renewals([node])) === 1, "the renewal");
  await published(node, { room: "user:7", event: "e", data: 2 });
  await until(() => client.events.length === 2, "an event after the renewal");
  client.socket.io.engine.close();
  await until(() => client.connects === 2, "the client again");
  assert.equal(client.socket.recovered, false);
  await published(node, { room: "user:7", event: "e", data: 3 });
  await until(() => client.argsOf("e").at(-1)[0] === 3, "an event after the reconnection");
});

scenario("the epoch's key is changed: clients get a gap signal, come back, and get what follows", async (s) => {
  const { store, nodes: [node] } = await stage(s);
  const key = "roomcast:{roomcast:events}:epoch";
  const client = await s.io(node, { token: tokenFor("7") }).connected();
  for (const [number, text] of ["ffffffff", "0", "", "not an epoch", "5"].entries()) {
    await store.cli("SET", key, text);
    await until(() => client.connects === number + 2, `the client after the epoch "${text}"`);
    await until(() => client.socket.connected, "connected");
    await published(node, { room: "user:7", event: "e", data: number });
    await until(() => client.argsOf("e").at(-1)?.[0] === number, `an event after the epoch "${text}"`);
  }
});

scenario("a flood of large entries stays within redis.max_stream_bytes", async (s) => {
  const max = 10_000_000;
  const { store, writer, nodes: [node] } = await stage(s, { redis: { max_stream_bytes: max } });
  const bystander = await witness(s, node);
  const data = "x".repeat(100_000);
  let largest = 0;
  const attack = async () => {
    for (let n = 0; n < 300; n++) {
      await writer.send("XADD", STREAM, "*", ...event("flood", data));
      if (n % 10) continue;
      largest = Math.max(largest, await streamBytes(store));
      // What a node cannot read in time would be cut, however slow this machine is just now.
      await until(async () => (await node.metric('roomcast_events_total{source="stream"}')) > n - 30, "a node that keeps up");
    }
  };
  await bystander.during(attack());
  bystander.unharmed();
  await until(async () => (await streamBytes(store)) < max * 1.25, "a stream within the maximum");
  assert.ok(largest < 2 * max, `up to ${largest} bytes`);
  assert.ok((await node.metric("roomcast_stream_trimmed_bytes_total")) > 10_000_000);
});

scenario("entries of many fields and of many megabytes are dead letters, and what follows arrives", async (s) => {
  const { store, writer, nodes: [node] } = await stage(s);
  const client = await s.io(node, { token: tokenFor("7") }).connected();
  const fields = Array.from({ length: 100_000 }, (_, n) => [`f${n}`, "v"]).flat();
  await writer.send("XADD", STREAM, "*", fields);
  await writer.send("XADD", STREAM, "*", ...event("huge", "x".repeat(50_000_000)));
  await published(node, { room: "user:7", event: "after", data: 1 });
  await until(() => client.argsOf("after").length === 1, "the event after them", 30_000);
  await until(async () => Number(await store.cli("XLEN", "roomcast:dead")) === 2, "two dead letters");
  assert.ok(Number(await store.cli("MEMORY", "USAGE", "roomcast:dead")) < 100_000);
  assert.equal((await node.get("/health")).status, 200);
});

scenario("while the stream's key has another type, /health says so, and the node recovers", async (s) => {
  const { store, nodes: [node] } = await stage(s);
  // For several partitions, where the log has them.
  const draft = { rooms: ["room:a", "room:b", "room:c"], event: "e" };
  await store.cli("DEL", STREAM);
  await store.cli("LPUSH", STREAM, "x");
  await until(async () => (await publish(node, draft)).status === 503, "publishes that are refused");
  const body = await until(async () => {
    const answer = await node.get("/health");
    return answer.status === 503 && answer.json().services.redis.error && answer.json();
  }, "/health answering 503 with the reason");
  assert.match(body.services.redis.error, /WRONGTYPE/);
  await store.cli("DEL", STREAM);
  await until(() => node.answers("/health"), "/health answering 200");
  await until(async () => (await publish(node, draft)).status === 200, "publishes again");
});

scenario("the lease of the node that copies from emitters has another type, and their stream gets the largest id", async (s) => {
  const { store, nodes: [node] } = await stage(s, { redis: { streams_key: "socket.io" } });
  const client = await s.io(node, { token: tokenFor("7") }).connected();
  const emit = (id, data) => {
    const message = { packet: { type: 2, data: ["e", data], nsp: "/" }, opts: { rooms: ["user:7"], except: [], flags: {} } };
    return store.cli("XADD", "socket.io", id, "uid", "emitter", "nsp", "/", "type", "3", "data", JSON.stringify(message));
  };
  const copied = async (data) => until(() => client.argsOf("e").some(([got]) => got === data), `${data} copied`);
  const lease = "roomcast:{roomcast:events}:emitters";
  await until(async () => (await store.cli("TYPE", lease)) === "string", "a node that copies");
  await store.cli("DEL", lease);
  await store.cli("LPUSH", lease, "x");
  await emit("*", 1);
  await copied(1);
  await emit(LARGEST, 2);
  await copied(2);
  // Nothing can be added to it any more: whoever owns it deletes it.
  await store.cli("DEL", "socket.io");
  await until(async () => (await store.cli("GET", `${lease}:socket.io`)) === "0-0", "a stream that is noticed to be gone");
  await emit("*", 3);
  await copied(3);
});
