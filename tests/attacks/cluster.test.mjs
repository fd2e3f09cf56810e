// What a client can make nodes do to each other: invented and real sessions of another node, large bodies, messages that
// are published again. The bystander polls through a node that does not own its session.
import assert from "node:assert/strict";
import { engineSocket, Polling } from "../harness/engine.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { rawSession } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

/** Where Redis ends a subscription that does not read: lower than its default, as the attack is. */
const SMALL_BUFFERS = ["--client-output-buffer-limit", "pubsub", "2mb", "1mb", "5"];
const BODY = 950_000;
/** How long a node remembers that another one does not know a sid. */
const KNOWN_FOR_MS = 5_000;

/** Two nodes, and a measured client of the first whose requests all come to the second, which may have `limits`. */
async function cluster(s, { limits } = {}) {
  const store = await s.redis({ args: SMALL_BUFFERS });
  const [a, b] = await Promise.all([{}, { limits }].map((more) => s.node({ redis: { url: store.url }, ...more })));
  const balancer = await s.proxy(a);
  const bystander = await witness(s, balancer, { publisher: limits ? a : b, transports: ["polling"], ready: () => (balancer.target = b) });
  const stat = async (section, name) => Number(new RegExp(`${name}[:=](\\d+)`).exec(await store.cli("INFO", section))?.[1] ?? 0);
  return { store, a, b, bystander, stat, published: () => stat("commandstats", "cmdstat_publish:calls") };
}

/** A sid that names a node and core as `real` does, and was made by nobody. */
function invented(real) {
  const bytes = Buffer.from(real, "base64url");
  crypto.getRandomValues(bytes.subarray(5));
  return bytes.toString("base64url");
}

/** Polling sessions of `owner` whose further requests go to `other`. */
async function polling(owner, other, count, token) {
  return Promise.all(Array.from({ length: count }, async () => {
    const session = await new Polling(owner).open();
    if (token) await session.join({ token });
    session.node = other;
    return session;
  }));
}

/** The answer to a WebSocket for a sid. */
async function upgrade(node, sid) {
  const socket = await engineSocket(node, { sid });
  socket.socket.destroy();
  return socket;
}

/** Runs `count` steps, `width` at once, and resolves with their results. */
async function many(count, width, step) {
  const results = [];
  let next = 0;
  const run = async () => {
    for (let own = next++; own < count; own = next++) results[own] = await step(own);
  };
  await Promise.all(Array.from({ length: width }, run));
  return results;
}

const statuses = (answers) => [...new Set(answers.map(({ status }) => status))].sort();
const LARGE = `42["echo","${"x".repeat(BODY)}"]`;

scenario("2,000 GETs, POSTs and upgrades with invented sids of another node cost no Redis command", async (s) => {
  const { a, b, bystander, published } = await cluster(s);
  const [real] = await polling(a, b, 1);
  const [before, events] = [await published(), bystander.events()];
  await bystander.during((async () => {
    const answers = await many(2_000, 2, (n) => {
      const sid = invented(real.sid);
      if (n % 50 === 0) return upgrade(b, sid);
      return n % 2 ? real.request("GET", undefined, { sid }) : real.request("POST", "40", { sid });
    });
    assert.deepEqual(statuses(answers), [400]);
    assert.equal(answers[1].json().code, 1);
  })());
  const bystanders = (bystander.events() - events) * 6 + 50;
  assert.ok((await published()) - before < bystanders, `${(await published()) - before} messages, of which ${bystanders} may be the bystander's`);
  assert.ok((await b.metric('roomcast_refusals_total{reason="session"}')) >= 2_000);
  bystander.unharmed();
});

scenario("bodies of 1 MB with sids of another node, invented, unproven and proven, never break its subscription", async (s) => {
  const { a, b, bystander, stat } = await cluster(s);
  const unproven = await polling(a, b, 30);
  const proven = await polling(a, b, 20, tokenFor("mallory"));
  await bystander.during((async () => {
    const [none, refused, taken] = await Promise.all([
      many(60, 6, () => unproven[0].request("POST", LARGE, { sid: invented(unproven[0].sid) })),
      many(30, 3, (n) => unproven[n].post(LARGE)),
      many(20, 8, (n) => proven[n].post(LARGE)),
    ]);
    assert.deepEqual(statuses(none), [400]);
    assert.deepEqual(statuses(refused), [413]);
    assert.deepEqual(statuses(taken).filter((status) => status !== 503), [200]);
  })());
  assert.equal(await stat("stats", "client_output_buffer_limit_disconnections"), 0);
  for (const node of [a, b]) assert.equal(await node.metric("roomcast_redis_reconnects_total"), 0);
  bystander.unharmed();
});

scenario("sids of sessions that have ended are asked about in batches, and known for a while", async (s) => {
  const { a, b, bystander, published } = await cluster(s);
  const ended = await polling(a, b, 100);
  for (const session of ended) {
    session.node = a;
    await session.post("1");
    session.node = b;
  }
  const [before, began] = [await published(), Date.now()];
  const answers = await many(1_000, 50, (n) => ended[n % 100].post("40"));
  assert.deepEqual(statuses(answers), [400]);
  const more = (await published()) - before;
  // Where the requests take longer than that, a sid is asked about again.
  const most = 150 * Math.ceil((Date.now() - began) / KNOWN_FOR_MS);
  assert.ok(more < most, `${more} messages for 1,000 requests with 100 sids`);
  bystander.unharmed();
});

scenario("invented pids do not make a node ask all others", async (s) => {
  const { b, bystander, published } = await cluster(s);
  const attempt = async () => {
    const pid = Buffer.from(crypto.getRandomValues(new Uint8Array(15))).toString("base64url");
    const session = await rawSession(s, b, { pid });
    session.close();
  };
  await bystander.during(many(200, 3, attempt));
  const before = await published();
  await many(100, 3, attempt);
  const messages = (await published()) - before;
  assert.ok(messages < 50, `${messages} messages for 100 pids`);
  bystander.unharmed();
});

scenario("a user in hundreds of rooms who joins and leaves makes a node write little", async (s) => {
  const { store, a, bystander, stat } = await cluster(s);
  const client = await s.io(a, { token: tokenFor("mallory"), transports: ["websocket"] }).connected();
  const names = Array.from({ length: 200 }, (_, n) => `${n}-${"long".repeat(45)}`);
  await Promise.all(names.map((name) => client.ask("join", name)));
  const received = () => stat("stats", "total_net_input_bytes");
  const before = await received();
  for (let n = 0; n < 200; n += 1) assert.deepEqual(await client.ask(n % 2 ? "join" : "leave", names[7]), [{ ok: true }]);
  const each = ((await received()) - before) / 200;
  assert.ok(each < 6_000, `${each} bytes to Redis for one join`);
  bystander.unharmed();
  assert.equal(await store.cli("PING"), "PONG");
});

scenario("requests of unproven sessions that wait at another node make room for others, those of proven ones do not", async (s) => {
  const { a, b, bystander } = await cluster(s, { limits: { unauthenticated: 20 } });
  const unproven = await polling(a, b, 60);
  const evicted = () => b.metric('roomcast_refusals_total{reason="unauthenticated"}');
  await bystander.during((async () => {
    // Their node waits for a token; the other one does not wait with them.
    const waiting = [];
    for (const session of unproven) {
      waiting.push(session.get().catch(() => undefined));
      // One after the other: all clients here have one address, and the bystander's requests must not be its oldest.
      await evicted();
    }
    await until(async () => (await evicted()) >= 40, "waiting requests that make room");
    // One after the other: on their own node, too, only twenty of them may be open.
    for (const session of unproven) await new Polling(a).request("POST", "1", { sid: session.sid });
    await Promise.all(waiting);
  })());
  bystander.unharmed();
});
