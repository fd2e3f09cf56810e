// Worklamp: each requirement of its README, with its own roomcast.toml, backend and frontend options.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { io } from "socket.io-client";
import { api, HttpError } from "./service.mjs";
import { FRONTEND, emittersSubscribed, jwt, KEY, SECRETS, stage, TRANSPORTS, watch } from "./stage.mjs";
import { startBackend } from "./worklamp/backend.mjs";
import { SocketService } from "./worklamp/client.mjs";

const FAST = { reconnectionDelay: 50 };
const claimsOf = (user, more) => ({ email_verified: true, tenantId: "t1", name: `${user} é`, role: "member", ...more });

async function worklamp(s, more) {
  const start = ({ redisUrl, roomcastUrl }) => startBackend({ secrets: SECRETS, redisUrl, roomcastUrl, key: KEY });
  const system = await stage(s, "worklamp", { start, ...more });
  await emittersSubscribed(system.redis, system.nodes);
  const everybody = ["ann", "bob", "eve", "guest"];
  for (const place of ["t1 project:p1", "t1 project:p2", "t1 channel:c1"]) system.backend.members.set(place, everybody);
  system.backend.members.set("t1 channel:c2", ["ann"]).set("t2 project:p9", ["zoe"]).set("t2 project:p1", ["zoe"]);
  return system;
}

async function person(s, { roomcast, backend }, user, { claims, via = roomcast, ...options } = {}) {
  const token = jwt(user, claimsOf(user, claims));
  const service = new SocketService(via.url, token, { ...FAST, ...options });
  const client = await watch(s, service.socket).connected();
  return { user, service, client, socket: service.socket, api: api(backend.url, token) };
}

const people = (s, system, users, options) => Promise.all(users.map((user) => person(s, system, user, options)));

/** The names of all events except user:status. */
const eventsOf = (client) => client.events.map(({ name }) => name).filter((name) => name !== "user:status");

/** The statuses of `user` that a client received. */
const statuses = ({ client }, user) => client.argsOf("user:status").map(([each]) => each).filter((each) => each.userId === user).map(({ status }) => status);

suite("Worklamp", () => {
  for (const [where, give] of Object.entries({
    "auth.token": (token) => ({ auth: { token } }),
    "the Authorization header": (token) => ({ extraHeaders: { authorization: `Bearer ${token}` } }),
    "a query parameter": (token) => ({ query: { token } }),
  })) {
    scenario(`auth: a JWT in ${where} is accepted if its email is verified, by WebSocket and polling`, async (s) => {
      const system = await worklamp(s);
      for (const options of Object.values(TRANSPORTS)) {
        const connect = (claims) => watch(s, io(system.roomcast.url, { forceNew: true, ...options, ...give(jwt("ann", claimsOf("ann", claims))) }));
        await (await connect().connected()).ask("join:project", "p1");
        for (const claims of [{ email_verified: false }, { email_verified: undefined }, { email_verified: "true" }]) {
          const refused = connect(claims);
          await refused.refused();
          assert.equal(refused.connects, 0, JSON.stringify(claims));
        }
      }
    });
  }

  scenario("auth: the backend gets the user's claims to authorize a join", async (s) => {
    const system = await worklamp(s);
    const guest = await person(s, system, "guest", { claims: { role: "guest", plan: { seats: 3 } } });
    await guest.service.show("project", "p1");
    await assert.rejects(guest.service.show("channel", "c1"), /guests see no channels/);
    const { claims } = await system.backend.call(({ type }) => type === "join", "the call");
    assert.deepEqual([claims.role, claims.tenantId, claims.plan, claims.name], ["guest", "t1", { seats: 3 }, "guest é"]);
  });

  scenario("rooms: user:{userId} and tenant:{tenantId} are joined automatically, and no other tenant's room", async (s) => {
    const system = await worklamp(s);
    const ann = await person(s, system, "ann");
    const zoe = await person(s, system, "zoe", { claims: { tenantId: "t2" } });
    system.backend.io.to("tenant:t1").emit("to t1", 1);
    system.backend.io.to("user:ann").emit("to ann", 2);
    system.backend.io.to("tenant:t2").emit("end", 3);
    system.backend.io.to("tenant:t1").emit("end", 3);
    await Promise.all([ann, zoe].map((each) => each.client.event("end")));
    assert.deepEqual([ann, zoe].map((each) => eventsOf(each.client)), [["to t1", "to ann", "end"], ["end"]]);
  });

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    scenario(`rooms: projects and channels are joined after a permission check and left on request, and a refusal reaches the callback: ${how}`, async (s) => {
      const system = await worklamp(s);
      const [ann, bob] = await people(s, system, ["ann", "bob"], options);
      for (const each of [ann, bob]) {
        await each.service.show("project", "p1");
        await each.service.show("channel", "c1");
      }
      await ann.service.show("channel", "c2");
      assert.deepEqual(await bob.client.ask("join:channel", "c2"), [{ success: false, error: "no access to this channel" }]);
      assert.deepEqual(await bob.client.ask("join:project", "p9"), [{ success: false, error: "no access to this project" }], "of another tenant");
      const [tricky] = await bob.client.ask("join:project", "p1:x");
      assert.equal(tricky.success, false);
      await bob.service.hide("project");
      await ann.api.post("/projects/p1/tasks", { title: "T" });
      await ann.client.event("task:created");
      await ann.api.post("/channels/c1/messages", { text: "not to ann, who left" });
      await ann.api.post("/channels/c2/messages", { text: "ann alone" });
      await ann.client.event("message:created");
      await bob.client.event("message:created");
      assert.deepEqual(ann.client.argsOf("message:created").map(([message]) => message.text), ["ann alone"]);
      assert.deepEqual(bob.client.argsOf("message:created").map(([message]) => message.text), ["not to ann, who left"]);
      assert.deepEqual(bob.client.argsOf("task:created"), []);
    });
  }

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    scenario(`events of the REST controllers reach clients on every node, each once and in order: ${how}`, async (s) => {
      const system = await worklamp(s);
      const readers = await Promise.all(system.nodes.map((via) => person(s, system, "ann", { via, ...options })));
      const outsider = await person(s, system, "bob", options);
      for (const { service } of readers) {
        await service.show("project", "p1");
        await service.show("channel", "c1");
      }
      const admin = api(system.backend.url, jwt("boss", claimsOf("boss", { role: "admin" })));
      const { api: rest } = readers[0];
      const task = await rest.post("/projects/p1/tasks", { title: "Täsk" });
      await rest.post(`/projects/p1/tasks/${task.id}`, { done: true });
      await rest.delete(`/projects/p1/tasks/${task.id}`);
      const bug = await rest.post("/projects/p1/bugs", { title: "Bug" });
      await rest.post(`/projects/p1/bugs/${bug.id}`, { severity: 1.5 });
      const feature = await rest.post("/projects/p1/features", { title: "Feature" });
      await rest.post(`/projects/p1/features/${feature.id}`, { votes: 2 });
      await rest.post("/channels/c1/messages", { text: "in the channel" });
      await admin.post("/notifications/ann", { title: "You were named" });
      await assert.rejects(rest.post("/notifications/bob", { title: "x" }), HttpError);
      const names = ["task:created", "task:updated", "task:deleted", "bug:created", "bug:updated", "feature:created", "feature:updated", "message:created", "notification:new"];
      for (const { client } of readers) {
        await client.event("notification:new");
        assert.deepEqual(eventsOf(client), names, "each once, in the order of the writes");
        assert.deepEqual(await client.event("task:created"), [task]);
        assert.deepEqual(await client.event("task:updated"), [{ ...task, done: true }]);
        assert.deepEqual(await client.event("task:deleted"), [{ id: task.id }]);
      }
      system.backend.io.to("user:bob").emit("end");
      await outsider.client.event("end");
      assert.deepEqual(eventsOf(outsider.client), ["end"]);
    });
  }

  scenario("typing indicators reach the others in the channel", async (s) => {
    const system = await worklamp(s);
    const [ann, bob, eve] = await people(s, system, ["ann", "bob", "eve"]);
    for (const each of [ann, bob]) await each.service.show("channel", "c1");
    ann.service.typing(true);
    assert.deepEqual(await bob.client.event("user:typing"), [{ channelId: "c1", userId: "ann", name: "ann é", isTyping: true }]);
    ann.service.typing(false);
    await until(() => bob.client.argsOf("user:typing").at(-1)[0].isTyping === false, "the end of typing");
    assert.equal((await eve.client.ask("typing:start", "c1"))[0].success, false, "not in the channel");
    system.backend.io.to("tenant:t1").emit("end");
    await Promise.all([ann, bob, eve].map((each) => each.client.event("end")));
    assert.deepEqual([ann, bob, eve].map((each) => each.client.argsOf("user:typing").length), [0, 2, 0]);
  });

  scenario("status: what a user sets reaches the tenant", async (s) => {
    const system = await worklamp(s);
    const [ann, bob] = await people(s, system, ["ann", "bob"]);
    const zoe = await person(s, system, "zoe", { claims: { tenantId: "t2" } });
    ann.service.setStatus("busy");
    await until(() => statuses(bob, "ann").includes("busy"), "busy");
    system.backend.io.emit("end");
    await zoe.client.event("end");
    assert.deepEqual(statuses(zoe, "ann"), []);
  });

  scenario("client: reconnects with exponential backoff of at most 30 s", async (s) => {
    const system = await worklamp(s);
    const { service } = await person(s, system, "ann", { reconnectionDelay: 1000 });
    const delays = service.delays(20);
    assert.ok(delays.every((delay) => delay <= 30_000), `${delays}`);
    assert.ok(delays.slice(10).every((delay) => delay >= 15_000) && delays[0] <= 1500, `it grows: ${delays}`);
  });

  scenario("client: the heartbeat interval is 25 s", async (s) => {
    const { roomcast } = await worklamp(s);
    const answer = await fetch(`${roomcast.url}/socket.io/?EIO=4&transport=polling`);
    const { pingInterval, pingTimeout } = JSON.parse((await answer.text()).slice(1));
    assert.deepEqual([pingInterval, pingTimeout], [25_000, 20_000]);
  });

  scenario("client: after a reconnection the rooms on screen are joined, with and without recovery", async (s) => {
    const system = await worklamp(s, { env: { ROOMCAST_RECOVERY__WINDOW: "8s" } });
    const proxy = await s.proxy(system.roomcast);
    // By WebSocket, since a cut between two polls would not be noticed.
    const ann = await person(s, system, "ann", { via: proxy, transports: ["websocket"] });
    await ann.service.show("project", "p1");
    await ann.service.show("channel", "c1");
    const bob = await person(s, system, "bob");
    await bob.api.post("/projects/p1/tasks", { title: "before" });
    await ann.client.event("task:created");
    proxy.cut();
    await bob.api.post("/projects/p1/tasks", { title: "missed" });
    await until(() => ann.client.argsOf("task:created").length === 2, "the missed task");
    assert.equal(ann.socket.recovered, true);
    ann.socket.io.reconnection(false);
    proxy.cut();
    await until(async () => (await Promise.all(system.nodes.map((node) => node.metric("roomcast_sessions")))).reduce((a, b) => a + b) === 1, "the session forgotten after the window", 30_000);
    ann.socket.io.reconnection(true);
    ann.socket.connect();
    await until(() => ann.client.connects === 3, "a new session");
    assert.equal(ann.socket.recovered, false);
    // The client joins again without waiting, and the backend decides: what comes before that is not for it.
    await until(async () => {
      await bob.api.post("/projects/p1/tasks", { title: "after" });
      return ann.client.argsOf("task:created").at(-1)[0].title === "after";
    }, "the project");
    await until(async () => {
      await bob.api.post("/channels/c1/messages", { text: "after" });
      return ann.client.argsOf("message:created").length > 0;
    }, "the channel");
  });

  for (const [how, window] of [["recovered", "2m"], ["as a new session", "0s"]]) {
    scenario(`client: what was sent while offline is sent after the reconnection, in order: ${how}`, async (s) => {
      const system = await worklamp(s, { env: { ROOMCAST_RECOVERY__WINDOW: window } });
      const proxy = await s.proxy(system.roomcast);
      const ann = await person(s, system, "ann", { via: proxy });
      // A client whose connection is cut in the middle of the upgrade notices only at its ping timeout.
      await until(() => ann.client.transport() === "websocket", "the upgrade");
      const bob = await person(s, system, "bob");
      proxy.target = { port: 1 };
      proxy.cut();
      await ann.client.disconnected();
      for (const status of ["one", "two", "three"]) ann.service.setStatus(status);
      proxy.target = system.roomcast;
      await until(() => statuses(bob, "ann").includes("three"), "all three");
      assert.deepEqual(statuses(bob, "ann").filter((status) => !["online", "offline"].includes(status)), ["one", "two", "three"]);
      assert.equal(Boolean(ann.socket.recovered), window !== "0s");
    });
  }

  scenario("settings: REDIS_URL and FRONTEND_URL are used, and other origins are refused", async (s) => {
    const system = await worklamp(s);
    const from = (origin, options) => watch(s, io(system.roomcast.url, { forceNew: true, auth: { token: jwt("ann", claimsOf("ann")) }, extraHeaders: { origin }, reconnection: false, ...options }));
    for (const options of Object.values(TRANSPORTS)) {
      await from(FRONTEND, options).connected();
      const refused = from("https://evil.example.com", options);
      await refused.refused();
      assert.equal(refused.connects, 0);
    }
    assert.equal((await system.nodes[0].get("/health")).json().services.redis.status, "ready");
    await published(system.nodes[0], { room: "user:ann", event: "e", data: 1 }, { key: KEY });
  });

  scenario("counts: GET /rooms counts the users of a room over devices and nodes", async (s) => {
    const system = await worklamp(s);
    const [ann, annsPhone, bob] = await Promise.all([...system.nodes, system.nodes[0]].map((via, at) => person(s, system, ["ann", "ann", "bob"][at], { via })));
    const viewers = async () => {
      const { count, users } = await bob.api.get("/projects/p1/viewers");
      return [count, users.toSorted()];
    };
    assert.deepEqual(await viewers(), [0, []]);
    for (const each of [ann, annsPhone, bob]) await each.service.show("project", "p1");
    await until(async () => (await viewers())[0] === 2, "two users");
    assert.deepEqual(await viewers(), [2, ["ann", "bob"]]);
    await annsPhone.service.show("project", "p2");
    bob.socket.disconnect();
    await until(async () => (await viewers())[0] === 1, "one user");
    assert.deepEqual(await viewers(), [1, ["ann"]]);
    await ann.service.hide("project");
    await until(async () => (await viewers())[0] === 0, "nobody");
  });

  scenario("status: online and offline reach the tenant once for each user", async (s) => {
    const system = await worklamp(s, { env: { ROOMCAST_PRESENCE__GRACE: "300ms" } });
    const ann = await person(s, system, "ann");
    const zoe = await person(s, system, "zoe", { claims: { tenantId: "t2" } });
    const [phone, laptop] = await Promise.all(system.nodes.map((via) => person(s, system, "bob", { via })));
    assert.deepEqual(await ann.client.event("user:status"), [{ userId: "bob", status: "online" }]);
    for (const { socket } of [phone, laptop]) socket.disconnect();
    await until(() => ann.client.argsOf("user:status").length === 2, "offline");
    assert.deepEqual(ann.client.argsOf("user:status").map(([{ userId, status }]) => [userId, status]), [["bob", "online"], ["bob", "offline"]]);
    system.backend.io.emit("end");
    await zoe.client.event("end");
    assert.deepEqual(zoe.client.argsOf("user:status"), []);
  });
});
