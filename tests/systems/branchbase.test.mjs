// BranchBase: each requirement of its README, with its own roomcast.toml, backend and frontend options.
import assert from "node:assert/strict";
import fs from "node:fs";
import { until } from "../harness/deadline.mjs";
import { startNode } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { database, startReplica } from "./branchbase/backend.mjs";
import { Realtime, Session } from "./branchbase/client.mjs";
import { io } from "socket.io-client";
import { api } from "./service.mjs";
import { fileOf, jwt, SECRETS, stage, TRANSPORTS, watch } from "./stage.mjs";

const FAST = { reconnectionDelay: 50, reconnectionDelayMax: 200 };

/** The system with several replicas over one database. */
async function branchbase(s, { replicas: count = 1, tokenSeconds, ...more } = {}) {
  const db = database();
  const replicas = [];
  const start = async ({ redisUrl }) => {
    for (let at = 0; at < count; at += 1) replicas.push(s.serve(await startReplica({ redisUrl, secrets: SECRETS, db, tokenSeconds })));
  };
  return { ...(await stage(s, "branchbase", { start, ...more })), db, replicas };
}

/** A user of the frontend: signed in, with a thread open unless `open: false`. */
async function person(s, { roomcast, replicas }, user, { open = true, options, ...more } = {}) {
  const rest = api(replicas[0].url);
  const tokens = await rest.post("/auth/sign-in", { user });
  const states = [];
  const realtime = s.keep(new Realtime({ url: roomcast.url, onStatus: (state) => states.push(state), options: { ...FAST, ...options }, ...more }));
  const client = watch(s, realtime.socket);
  realtime.signedIn(new Session(rest, tokens));
  if (open) {
    realtime.openThread();
    await client.connected();
  }
  return { user, realtime, client, states, tokens, api: api(replicas.at(-1).url, tokens.token) };
}

const became = ({ realtime, states }, status) => until(() => realtime.status === status, () => `${status}; was ${states}`);

suite("BranchBase", () => {
  scenario("GET /health: services.redis.status is \"ready\" only while Redis answers", async (s) => {
    const { redis, nodes: [node] } = await branchbase(s);
    const status = async () => (await node.get("/health")).json().services.redis.status;
    assert.equal(await status(), "ready");
    await redis.stop("SIGKILL");
    await until(async () => (await status()) !== "ready", "another status");
    await until(async () => (await node.get("/health")).status === 503, "503");
    await redis.start();
    await until(async () => (await status()) === "ready", "ready again");
  });

  scenario("GET /socket/ping is 200 only while events can be delivered", async (s) => {
    const system = await branchbase(s);
    await person(s, system, "ann", { options: { transports: ["websocket"] } });
    const pings = () => Promise.all(system.nodes.map((node) => node.get("/socket/ping")));
    for (const ping of await pings()) assert.deepEqual([ping.status, ping.json().status], [200, "live"]);
    await until(async () => (await pings()).reduce((sum, ping) => sum + ping.json().connections, 0) === 1, "it counts the Socket.IO connections");
    system.redis.signal("SIGSTOP");
    await until(async () => (await system.nodes[0].get("/socket/ping")).status === 503, "503 while nothing can be delivered");
    assert.equal((await system.nodes[0].get("/health/live")).status, 200, "HTTP still answers");
    system.redis.signal("SIGCONT");
    await until(async () => (await system.nodes[0].get("/socket/ping")).status === 200, "live again");
  });

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    scenario(`sendMessageToUser and markConversationRead publish message:new and conversation:update to the users concerned: ${how}`, async (s) => {
      const system = await branchbase(s);
      const [ann, bob, eve] = await Promise.all(["ann", "bob", "eve"].map((user) => person(s, system, user, { options })));
      const phone = await person(s, system, "ann", { options });
      const message = await ann.api.post("/users/bob/messages", { text: "héllo" });
      for (const { client } of [bob, ann, phone]) assert.deepEqual(await client.event("message:new"), [message]);
      assert.deepEqual(await bob.client.event("conversation:update"), [{ conversationId: "ann-bob", unread: 1 }]);
      await ann.api.post("/users/bob/messages", { text: "again" });
      await bob.api.post("/conversations/ann-bob/read");
      await until(() => bob.client.argsOf("conversation:update").at(-1)?.[0].unread === 0, "read");
      assert.deepEqual(bob.client.argsOf("conversation:update").map(([update]) => update.unread), [1, 2, 0], "in order");
      await ann.api.post("/users/eve/messages", { text: "end" });
      await eve.client.event("conversation:update");
      assert.equal(eve.client.events.length, 2, "nothing that was for others");
      assert.deepEqual(ann.client.argsOf("conversation:update"), []);
    });
  }

  scenario("client: one shared socket connects when a thread is opened", async (s) => {
    const system = await branchbase(s);
    const ann = await person(s, system, "ann", { open: false });
    const connections = async () => (await Promise.all(system.nodes.map((node) => node.connections("socketio")))).reduce((a, b) => a + b);
    assert.deepEqual([ann.realtime.status, await connections()], ["offline", 0]);
    for (let thread = 0; thread < 3; thread += 1) ann.realtime.openThread();
    await became(ann, "live");
    await until(() => ann.client.transport() === "websocket", "the upgrade");
    for (let thread = 0; thread < 3; thread += 1) ann.realtime.openThread();
    await until(async () => (await connections()) === 1, async () => `one connection, not ${await connections()}`);
    assert.equal(ann.client.connects, 1);
  });

  scenario("client: a sign-in as another user reconnects with the new token", async (s) => {
    const system = await branchbase(s);
    const ann = await person(s, system, "ann");
    ann.realtime.signedIn(new Session(api(system.replicas[0].url), await api(system.replicas[0].url).post("/auth/sign-in", { user: "bob" })));
    await until(() => ann.client.connects === 2, "connected again");
    const eve = await person(s, system, "eve");
    await eve.api.post("/users/ann/messages", { text: "not for bob" });
    await eve.api.post("/users/bob/messages", { text: "for bob" });
    assert.equal((await ann.client.event("message:new"))[0].text, "for bob");
  });

  scenario("client: an expired token is refreshed, and no message is missed", async (s) => {
    const system = await branchbase(s, { tokenSeconds: 2 });
    const ann = await person(s, system, "ann");
    const bob = await person(s, system, "bob");
    const sent = [];
    while (ann.client.connects < 3) {
      const text = `n${sent.length}`;
      await system.replicas[0].sendMessageToUser({ user: "bob", params: { userId: "ann" }, body: { text } });
      sent.push(text);
      await until(() => bob.client.argsOf("message:new").length === sent.length, "bob's copy before the next message");
    }
    await until(() => ann.client.argsOf("message:new").length >= sent.length, "every message");
    assert.deepEqual(ann.client.argsOf("message:new").map(([message]) => message.text), sent, "each once, in order, over two expiries");
    assert.ok(system.db.refreshes >= 2);
    assert.ok(ann.client.disconnects.every((reason) => reason === "transport close"), `${ann.client.disconnects}`);
    assert.ok(!ann.states.includes("offline"), `${ann.states}`);
  });

  scenario("client: a logout closes the socket and ends the session", async (s) => {
    const system = await branchbase(s);
    const ann = await person(s, system, "ann");
    ann.realtime.signedOut();
    assert.equal(await ann.client.disconnected(), "io client disconnect");
    await until(async () => (await Promise.all(system.nodes.map((node) => node.metric("roomcast_sessions")))).every((n) => n === 0), "no session left");
    assert.equal(ann.realtime.status, "offline");
  });

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    scenario(`client: after an automatic reconnection the missed messages arrive: ${how}`, async (s) => {
      const system = await branchbase(s);
      const ann = await person(s, system, "ann", { options });
      const bob = await person(s, system, "bob");
      await bob.api.post("/users/ann/messages", { text: "before" });
      await ann.client.event("message:new");
      for (let turn = 0; turn < 2; turn += 1) {
        ann.client.socket.io.engine.close();
        await bob.api.post("/users/ann/messages", { text: `missed ${turn}` });
        await until(() => ann.client.connects === 2 + turn, "connected again");
        await until(() => ann.client.argsOf("message:new").length === 2 + turn, "the missed message");
      }
      assert.deepEqual(ann.client.argsOf("message:new").map(([message]) => message.text), ["before", "missed 0", "missed 1"]);
    });
  }

  scenario("status badge: live, reconnecting, offline (while the client polls REST), live again", async (s) => {
    let polls = 0;
    const system = await branchbase(s, { nodes: 1 });
    const [node] = system.nodes;
    const poll = async () => (polls += 1);
    const ann = await person(s, system, "ann", { poll, pollEvery: 100 });
    await node.stop();
    await became(ann, "offline");
    await until(() => polls > 1, "REST polled");
    const again = await s.node({}, { file: fileOf("branchbase"), port: node.port, env: { ROOMCAST_LISTEN: `127.0.0.1:${node.port}`, ...system.settings } });
    await became(ann, "live");
    const before = polls;
    // A node that has just started may close a client once more before it can look for its session.
    const states = ann.states.filter((state, at) => !(state === "reconnecting" && ann.states[at - 1] === "offline"));
    assert.deepEqual(states, ["reconnecting", "live", "reconnecting", "offline", "live"]);
    await again.get("/health");
    assert.ok(polls - before <= 1, "a live client does not poll");
  });

  scenario("status badge: offline at once after a refused token, while the client polls REST, every 8 s by default", async (s) => {
    const system = await branchbase(s, { nodes: 1 });
    let polls = 0;
    const realtime = s.keep(new Realtime({ url: system.roomcast.url, poll: async () => (polls += 1), pollEvery: 50 }));
    const client = watch(s, realtime.socket);
    // At the moment of the refusal: a poll follows soon, and with it the next attempt.
    let refused;
    realtime.socket.once("connect_error", () => (refused = [realtime.status, realtime.socket.active]));
    realtime.signedIn({ token: async () => jwt("ann", { exp: 1 }) });
    realtime.openThread();
    await client.refused();
    assert.deepEqual(refused, ["offline", false]);
    await until(() => client.errors.length > 1, "another attempt after a poll");
    assert.equal(new Realtime({ url: system.roomcast.url }).pollEvery, 8000);
  });

  scenario("events of several API replicas reach clients on every node, in one order", async (s) => {
    const system = await branchbase(s, { replicas: 3 });
    const clients = [];
    for (const node of system.nodes) {
      const socket = io(node.url, { forceNew: true, auth: { token: jwt("ann") } });
      clients.push(await watch(s, socket).connected());
    }
    const apis = system.replicas.map((replica) => api(replica.url, jwt("bob")));
    for (const [at, rest] of apis.entries()) await rest.post("/users/ann/messages", { text: `by ${at}` });
    for (const client of clients) {
      await until(() => client.argsOf("message:new").length === 3, "three messages");
      assert.deepEqual(client.argsOf("message:new").map(([message]) => message.text), ["by 0", "by 1", "by 2"]);
    }
    await Promise.all(Array.from({ length: 60 }, (_, at) => apis[at % 3].post("/users/ann/messages", { text: `${at}` })));
    for (const client of clients) await until(() => client.argsOf("message:new").length === 63, "sixty more");
    const orders = clients.map((client) => client.argsOf("message:new").map(([message]) => message.id));
    assert.deepEqual(orders[0], orders[1], "the same order on both nodes");
    assert.equal(new Set(orders[0]).size, 63);
  });

  scenario("shutdown: SIGTERM closes the sockets and the Redis connections, and clients continue on the other node", async (s) => {
    const system = await branchbase(s);
    const [a, b] = system.nodes;
    // One after the other and by WebSocket alone: two on each node.
    const people = [];
    for (const user of ["ann", "bob", "eve", "dan"]) people.push(await person(s, system, user, { options: { transports: ["websocket"] } }));
    const own = async () => (await system.redis.cli("CLIENT", "LIST")).split("\n").length;
    const before = await own();
    system.roomcast.target = b;
    const exit = a.stop();
    for (let n = 0; n < 10; n += 1) await people[0].api.post("/users/bob/messages", { text: `${n}` });
    assert.equal((await exit).code, 0, a.output);
    const moved = () => people.filter((each) => each.client.disconnects.length);
    await until(() => moved().length >= 2, "those of the stopped node notice");
    await Promise.all(people.map((each) => became(each, "live")));
    await until(() => people[1].client.argsOf("message:new").length === 10, "ten messages");
    assert.deepEqual(people[1].client.argsOf("message:new").map(([message]) => message.text), Array.from({ length: 10 }, (_, n) => `${n}`));
    assert.equal(moved().length, 2, "those of the stopped node");
    for (const each of moved()) assert.deepEqual(each.client.disconnects, ["transport close"], "closed so that they reconnect");
    await until(async () => (await own()) < before, "its connections to Redis closed");
    assert.match(a.output, /stopped/);
  });

  scenario("port: HTTP and WebSocket share one port, 8080 by default and PORT otherwise", async (s) => {
    const redis = await s.redis();
    assert.match(fs.readFileSync(fileOf("branchbase"), "utf8"), /^listen = "0\.0\.0\.0:8080"/m);
    const port = await freePort();
    const node = await startNode({}, { file: fileOf("branchbase"), port, env: { PORT: `${port}`, JWT_SECRET: SECRETS.jwt, REDIS_URL: redis.url, ROOMCAST_SHUTDOWN__PAUSE: "0s", ROOMCAST_SHUTDOWN__DRAIN: "100ms" } });
    try {
      assert.equal((await node.get("/health")).status, 200);
      for (const options of Object.values(TRANSPORTS)) {
        await watch(s, io(node.url, { forceNew: true, auth: { token: jwt("ann") }, ...options })).connected();
      }
    } finally {
      await node.stop();
    }
  });
});
