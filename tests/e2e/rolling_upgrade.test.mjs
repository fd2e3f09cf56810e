// A rolling upgrade: nodes of two releases on one Redis. What a newer release may write is written by hand; the previous
// release itself runs where ROOMCAST_PREVIOUS_BIN names its binary.
import assert from "node:assert/strict";
import { createHmac, randomBytes } from "node:crypto";
import { until, within } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { argumentsOf, heartbeats, isNewSession, nodeNames, offsetAfter, rawSession, rawSessionRetried, recorded, toUser } from "../harness/sessions.mjs";
import { redisClients } from "../harness/socketio_server.mjs";
import { tokenFor } from "../harness/token.mjs";
import { Trace } from "../harness/trace.mjs";

const PREVIOUS = process.env.ROOMCAST_PREVIOUS_BIN;
const needsPrevious = PREVIOUS ? {} : { skip: "ROOMCAST_PREVIOUS_BIN names no binary of the previous release" };
const KEY_RING = "roomcast:{roomcast:events}:keys";
const SIGNING_KEY = "roomcast:{roomcast:events}:seal";
const dropped = (node, reason) => node.metric(`roomcast_drops_total{reason="${reason}"}`);

/** A node by hand that speaks to `to`: `send(body)` and the bodies that it `received`. */
async function peer(s, store, to) {
  const [publisher, subscriber] = await redisClients(store.url, 2);
  s.serve({ close: () => Promise.all([publisher, subscriber].map((client) => client.destroy())) });
  const key = await until(() => publisher.get(SIGNING_KEY), "the nodes' key");
  const from = randomBytes(4).toString("hex");
  const received = [];
  await subscriber.subscribe(`roomcast:node:${from}`, (message) => received.push(JSON.parse(message.slice(64)).body));
  let number = 0;
  const send = (body, more) => {
    const json = JSON.stringify({ from, to, number: (number += 1), body, ...more });
    return publisher.publish(`roomcast:node:${to}`, createHmac("sha256", key).update(json).digest("hex") + json);
  };
  return { send, received, answer: (call) => within(until(() => received.find((body) => body.answer?.[0] === call), `the answer to ${call}`)) };
}

/** What the usual configuration of tests has and the previous release does not know. */
const OLDER = { limits: { joins_per_second: undefined, user_joins_per_second: undefined } };

/** A node of the previous release and one of this, on one Redis. */
async function twoReleases(s) {
  const store = await s.redis();
  const redis = { url: store.url };
  const old = await s.node({ redis, ...OLDER }, { binary: PREVIOUS });
  return { store, redis, old, current: await s.node({ redis }) };
}

suite("rolling upgrade", () => {
  scenario("stream entries of a newer release: unknown fields are ignored, unknown kinds skipped, a higher version is a dead letter", async (s) => {
    const store = await s.redis();
    const node = await s.node({ redis: { url: store.url } });
    const client = await (await s.ws(node, { token: tokenFor("7") }).welcomed()).join("room:a");
    const add = (...fields) => store.cli("XADD", "roomcast:events", "*", ...fields);
    const event = ["room", "room:a", "event", "n", "data"];
    await add(...event, "1", "priority", "high", "t", `${Date.now() * 1000}`, "src", "scheduler");
    await add("kind", "schedule", "room", "room:a", "event", "n", "data", "9");
    await add("order", JSON.stringify({ id: "A".repeat(20), from: "00000000", for: { user: "8" }, do: "disconnect", why: "x" }), "v", "1");
    await add(...event, "9", "t", "1", "v", "2");
    await add(...event, "9", "priority", "high");
    await published(node, { room: "room:a", event: "n", data: 2 });
    await until(() => client.eventsOf("n").length === 2, "both events");
    assert.deepEqual(client.eventsOf("n").map(({ data }) => data), [1, 2]);
    await until(async () => (await dropped(node, "malformed")) === 2, "a higher version, and a stranger's unknown field");
    await until(async () => (await store.cli("XLEN", "roomcast:dead")) === "2", "both dead letters");
    await until(async () => (await dropped(node, "unsupported")) === 1, "the unknown kind");
  });

  scenario("requests of a newer release are answered, unknown ones with unsupported; unknown one-way messages are ignored", async (s) => {
    const store = await s.redis();
    const node = await s.node({ redis: { url: store.url } });
    const other = await peer(s, store, (await until(async () => (await nodeNames(store))[0], "the node's name")));
    await other.send({ tell: { rebalance: [1, 2] } });
    await other.send({ ask: [1, { transcript: ["room:a", 5] }] });
    await other.send({ ask: [2, { members: ["/", "room:a"] }] }, { v: 2, trace: "x" });
    assert.deepEqual(await other.answer(1), { answer: [1, "unsupported"] });
    assert.deepEqual(await other.answer(2), { answer: [2, { members: [0, []] }] });
    assert.equal(await dropped(node, "malformed"), 0);
  });

  scenario("events, commands and rooms pass between the previous release and this one", async (s) => {
    const { store, old, current } = await twoReleases(s);
    const clients = await Promise.all([old, current].map(async (node) => (await s.ws(node, { token: tokenFor("7") }).welcomed()).join("room:a")));
    for (const [n, node] of [old, current, old, current].entries()) await published(node, { room: "room:a", event: "n", args: [n, "x"], except: ["room:z"] });
    for (const client of clients) {
      await until(() => client.eventsOf("n").length === 4, "events of both releases");
      assert.deepEqual(client.eventsOf("n").map(({ args }) => args[0]), [0, 1, 2, 3]);
    }
    for (const node of [old, current]) {
      const joined = await command(node, "/join", { user: "7", rooms: [`room:by${node.port}`] });
      assert.equal(joined.json().sessions, 2);
      await published(node, { room: `room:by${node.port}`, event: `joined${node.port}`, data: 1, volatile: true });
      for (const client of clients) await client.event(`joined${node.port}`);
    }
    assert.equal(await store.cli("EXISTS", "roomcast:dead"), "0");
  }, needsPrevious);

  scenario("a trace says that a node of the previous release takes no part, and goes on without it", async (s) => {
    const { current } = await twoReleases(s);
    const trace = await s.keep(new Trace(current, { user: "7" })).opened(1);
    await trace.line({ type: "node", status: "older_release" });
    await s.ws(current, { token: tokenFor("7") }).welcomed();
    await trace.line({ type: "connected", user: "7" });
  }, needsPrevious);

  scenario("the key that signs messages is renewed once no node of the previous release is left", async (s) => {
    const { store, old, current } = await twoReleases(s);
    const ring = async (field) => (await store.cli("HGET", KEY_RING, field)) || undefined;
    await store.cli("HSET", KEY_RING, "since", "0");
    const begun = Math.max(...(await heartbeats(store)));
    await until(async () => Math.min(...(await heartbeats(store))) > begun + 2_000, "two more heartbeats of both");
    assert.equal(await ring("next"), undefined);
    await old.stop();
    await until(() => ring("next"), "a new key");
    assert.equal(current.exit, undefined);
  }, needsPrevious);

  for (const direction of ["from the previous release to this one", "from this release to the previous one"]) {
    scenario(`a polling session and a killed node's session move ${direction}`, async (s) => {
      const { store, old, current } = await twoReleases(s);
      const [owner, other] = direction.startsWith("from this") ? [current, old] : [old, current];
      const balancer = await s.proxy(owner);
      const polling = await s.io(balancer, { token: tokenFor("8"), transports: ["polling"] }).connected();
      await polling.join("room:a");
      balancer.target = other;
      for (const n of [1, 2, 3]) {
        await published(other, { room: "room:a", event: "n", data: n });
        assert.deepEqual(await polling.ask("say", "a", n), [{ ok: true }]);
      }
      await until(() => polling.argsOf("n").length === 3, "events over forwarded requests");
      const first = await rawSession(s, owner);
      const resume = { pid: first.reply.pid, offset: await offsetAfter(first, owner, "first") };
      assert.deepEqual(await first.ask("join", "late"), { ok: true });
      await recorded(store, "user:7");
      await owner.stop("SIGKILL");
      await published(other, toUser("missed", 1));
      const again = await rawSessionRetried(s, other, resume);
      assert.equal(await isNewSession(again, first, other, "late"), false, "recovered");
      assert.deepEqual(argumentsOf(again.texts, "missed"), [1]);
    }, needsPrevious);
  }
});
