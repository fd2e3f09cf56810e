// A tenant that floods at its limit through many rooms: what another tenant resumes from, its latency and the node's
// memory stay as they were.
import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario } from "../harness/scenario.mjs";
import { nodesOn, reconnected, recorded } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const MB = 1_000_000;
const CLIENTS = 5;
const ROOMS = 1_500;
// Fewer events than rooms, and each has less than a 1024th of it: no room stands out.
const WINDOW = 0.6 * MB;
const TEXT = "x".repeat(350);
// At least.
const EVENT = 500;
// The first part of a room's name is its tenant.
const SETTINGS = {
  limits: { tenant_claim: "org", tenant_events_per_second: 1_000, rooms_per_session: ROOMS, events_per_second: 100_000, user_events_per_second: 0, joins_per_second: 100_000, user_joins_per_second: 0 },
  recovery: { window_bytes: `${WINDOW / 1_000}kB` },
  rooms: [{ match: "user:{user}", join: "auto" }, { match: "{claims.org}:<name>", join: "allow" }],
  on: [
    { event: "join", join: "{claims.org}:{0}", ack: [{ ok: true }] },
    { event: "say", emit: [{ room: "{claims.org}:{0}", event: "said", args: ["{1}"] }], ack: [{ ok: true }] },
  ],
};
const onRedis = (url) => ({ redis: { url, partition_segments: 1 } });
const member = (s, node, user, org) => s.io(node, { token: tokenFor(user, { org }), ...WEBSOCKET }).connected();
/** In parts: each join waits for the one before it to be written to Redis, and each answer has its deadline. */
async function joins(client, names) {
  for (let from = 0; from < names.length; from += 50) {
    await Promise.all(names.slice(from, from + 50).map(async (name) => assert.deepEqual(await client.ask("join", name), [{ ok: true }])));
  }
}

/** Clients of tenant `a`, each in rooms of its own. */
async function flooders(s, node) {
  const clients = await Promise.all(Array.from({ length: CLIENTS }, (_, n) => member(s, node, `a${n}`, "a")));
  const own = (n) => Array.from({ length: ROOMS / CLIENTS }, (_, room) => `${n}-${room}`);
  await Promise.all(clients.map((client, n) => joins(client, own(n))));
  return clients;
}

/** A client of tenant `b` that has lost its connection; what it missed since came from `other`, a client as those of `a`. */
async function away(s, node, other) {
  const client = await member(s, node, "b", "b");
  await joins(client, ["quiet"]);
  assert.deepEqual(await other.ask("say", "quiet", "before"), [{ ok: true }]);
  await client.event("said");
  client.socket.io.reconnection(false);
  client.socket.io.engine.close();
  await client.disconnected();
  assert.deepEqual(await other.ask("say", "quiet", "missed"), [{ ok: true }]);
  return client;
}

scenario("a tenant's clients flood their rooms at their limit: another tenant notices nothing", async (s) => {
  const store = await s.redis();
  const [node] = await nodesOn(s, store, 1, { ...SETTINGS, ...onRedis(store.url) });
  const clients = await flooders(s, node);
  const other = await member(s, node, "b2", "b");
  await joins(other, ["quiet"]);
  const bystander = await witness(s, node);
  const [resident, window] = ["process_resident_memory_bytes", 'roomcast_memory_bytes{kind="window"}'];
  const before = await node.metric(resident);
  let [sent, round] = [0, 0];
  const flood = s.repeat(async () => {
    round += 1;
    const answers = await Promise.all(clients.map((client, n) => client.ask("say", `${n}-${round % (ROOMS / CLIENTS)}`, TEXT)));
    const errors = answers.flatMap(([{ error }]) => error ?? []);
    assert.ok(errors.every(({ code }) => code === "rate_limited"), JSON.stringify(errors[0]));
    sent += clients.length - errors.length;
    // As fast as the limit allows, and no faster: what the clients themselves cost is not the node's.
    const again = performance.now() + Math.max(0, ...errors.map(({ retry_after_ms: ms }) => ms));
    await until(() => performance.now() >= again, "the time that was named");
  });
  let most = 0;
  const attack = async () => {
    for (let time = 0; time < 2; time += 1) {
      const victim = await away(s, node, other);
      const from = sent;
      await until(() => (sent - from) * EVENT > 1.5 * WINDOW, "more than the window holds", 30_000);
      victim.socket.connect();
      assert.equal(await reconnected(victim), true, `time ${time}: the other tenant is not recovered`);
      await until(() => victim.argsOf("said").length === 2, "what it missed");
      assert.deepEqual(victim.argsOf("said"), [["before"], ["missed"]]);
      most = Math.max(most, await node.metric(window));
      victim.close();
    }
    await flood.stop();
  };
  await bystander.during(attack());
  bystander.unharmed();
  assert.ok(most <= WINDOW, `${most} bytes in the window`);
  const grown = (await node.metric(resident)) - before;
  assert.ok(grown < 30 * WINDOW, `the node has grown by ${Math.round(grown / MB)} MB`);
});

scenario("a node dies after a tenant's flood: who comes from another tenant is recovered by the one that reads the log again", async (s) => {
  const store = await s.redis();
  const [a, b] = await nodesOn(s, store, 2, { ...SETTINGS, ...onRedis(store.url) });
  const balancer = await s.proxy(a);
  const clients = await flooders(s, balancer);
  const victim = await member(s, balancer, "b", "b");
  await joins(victim, ["quiet"]);
  await published(a, { room: "b:quiet", event: "before", data: 1 });
  await victim.event("before");
  await recorded(store, "b:quiet");
  const all = [...clients.slice(0, 2), victim, ...clients.slice(2)];
  all.forEach((client) => client.socket.io.reconnection(false));
  balancer.target = b;
  await a.stop("SIGKILL");
  await published(b, { room: "b:quiet", event: "missed", data: 2 });
  for (let batch = 0; batch < 100; batch += 1) {
    const lines = Array.from({ length: 300 }, (_, n) => JSON.stringify({ room: `a:${batch % CLIENTS}-${n}`, event: "said", data: TEXT }));
    await published(b, lines.join("\n"), { headers: { "content-type": "application/x-ndjson" } });
  }
  all.forEach((client) => client.socket.connect());
  assert.equal(await reconnected(victim), true, "the other tenant is not recovered");
  await victim.event("missed");
  await Promise.all(clients.map((client) => reconnected(client)));
  assert.ok((await b.metric('roomcast_memory_bytes{kind="window"}')) <= WINDOW);
});
