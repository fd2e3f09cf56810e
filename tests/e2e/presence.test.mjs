// Presence: which users are online and in which rooms, announced once for each user, and nobody left behind.
import assert from "node:assert/strict";
import fs from "node:fs";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const POLLING = { transports: ["polling"] };
const rooms = [
  { match: "user:{user}", join: "auto" },
  {
    match: "chat:<chatId>",
    join: "allow",
    presence: true,
    joined: { event: "user_joined", args: [{ userId: "{user}", chatId: "{chatId}", name: "{claims.name}" }] },
    left: { event: "user_left", args: [{ userId: "{user}", chatId: "{chatId}" }] },
  },
  { match: "seat:<n>", join: "allow", presence: true },
  { match: "plain:<n>", join: "allow" },
];
const on = ["chat", "seat", "plain"].flatMap((kind) => [
  { event: `join_${kind}`, join: `${kind}:{0}`, ack: [{ ok: true }] },
  { event: `leave_${kind}`, leave: `${kind}:{0}`, ack: [{ ok: true }] },
]);
const ok = [{ ok: true }];
const token = (user, claims = {}) => tokenFor(user, { name: `n${user}`, ...claims });
const config = (more = {}) => ({ rooms, on, presence: { grace: "300ms", lease: "10s" }, ...more });

const ask = (node, path) => node.get(path, { authorization: `Bearer ${KEY}` });
const room = async (node, name) => {
  const { connections, users } = (await ask(node, `/rooms/${name}`)).json();
  return `${connections} ${users}`;
};
const user = async (node, id) => (await ask(node, `/users/${id}`)).json();
const becomes = (what, wanted, deadline) => {
  let seen;
  return until(async () => (seen = await what()) === wanted, () => `${wanted}; now ${seen}`, deadline);
};

/** A backend, a Redis, and nodes that notify the backend of everything. */
async function cluster(s, count, more = {}) {
  const backend = await startBackend();
  s.keep(backend);
  const store = await s.redis();
  // With the rights of docs/redis.md.
  const acl = fs.readFileSync(new URL("../../docs/redis.md", import.meta.url), "utf8").split("\n").find((line) => line.startsWith("ACL SETUSER roomcast on"));
  await store.cli(...acl.replace("PASSWORD", "secret").split(" "));
  const url = store.url.replace("redis://", "redis://roomcast:secret@");
  const notify = ["online", "offline", "occupied", "vacated"];
  const settings = config({ redis: { url }, ...backend.config({ notify, timeout: "1m" }), ...more });
  const nodes = await Promise.all(Array.from({ length: count }, () => s.node(settings)));
  return { backend, store, nodes };
}

for (const kind of ["embedded", "Redis"]) {
  const only = async (s, more = {}) => {
    const backend = await startBackend();
    s.keep(backend);
    const redis = kind === "Redis" ? { redis: { url: (await s.redis()).url } } : {};
    return { backend, node: await s.node(config({ ...redis, ...backend.config({ notify: ["online", "offline", "occupied", "vacated"] }), ...more })) };
  };

  suite(`presence, ${kind}`, () => {
    scenario("joined and left are announced once per user, not per tab, on all three protocols", async (s) => {
      const { node } = await only(s);
      const watcher = await s.io(node, { token: token("1"), ...WEBSOCKET }).connected();
      assert.deepEqual(await watcher.ask("join_chat", 42), ok);
      const tab = await s.io(node, { token: token(7), ...POLLING }).connected();
      await tab.ask("join_chat", 42);
      const other = await s.ws(node, { token: token(7) }).welcomed();
      await other.join("chat:42");
      const third = await s.sse(node, { token: token("7"), rooms: ["chat:42"] }).answered();
      assert.deepEqual(await watcher.event("user_joined"), [{ userId: 7, chatId: "42", name: "n7" }]);
      await becomes(() => room(node, "chat:42"), "4 1,7");
      assert.deepEqual(await tab.ask("leave_chat", 42), ok);
      other.close();
      await becomes(() => room(node, "chat:42"), "2 1,7");
      third.close();
      assert.deepEqual(await watcher.event("user_left"), [{ userId: "7", chatId: "42" }].map((left) => ({ ...left, userId: 7 })));
      await becomes(() => room(node, "chat:42"), "1 1");
      await published(node, { room: "chat:42", event: "end", data: 0 });
      await watcher.event("end");
      assert.deepEqual([watcher.argsOf("user_joined").length, watcher.argsOf("user_left").length], [1, 1]);
      assert.deepEqual(tab.argsOf("user_joined"), [], "not announced to the user itself");
    });

    scenario("a leave is announced at once, also right after the join", async (s) => {
      const { node } = await only(s, { presence: { grace: "1h", lease: "10s" } });
      const watcher = await s.io(node, { token: token("1"), ...WEBSOCKET }).connected();
      await watcher.ask("join_chat", 1);
      const guest = await s.io(node, { token: token("2"), ...WEBSOCKET }).connected();
      for (let turn = 1; turn <= 20; turn += 1) {
        guest.socket.emit("join_chat", 1);
        await guest.ask("leave_chat", 1);
        await until(() => watcher.argsOf("user_left").length === turn, () => `${turn} × user_left`);
      }
      assert.deepEqual(watcher.argsOf("user_joined").length, 20);
      assert.deepEqual(watcher.events.map((event) => event.name), Array(20).fill(["user_joined", "user_left"]).flat());
    });

    scenario("online, offline and last seen: GET /users, POST /users and the backend agree", async (s) => {
      const { backend, node } = await only(s, { presence: { grace: "1500ms", lease: "5s" } });
      assert.deepEqual(await user(node, "7"), { user: "7", online: false, connections: 0, last_seen: null });
      const tab = await s.io(node, { token: token(7), ...WEBSOCKET }).connected();
      const more = await s.io(node, { token: token("7"), ...WEBSOCKET }).connected();
      await becomes(async () => (await user(node, "7")).connections, 2);
      assert.deepEqual(await user(node, "7"), { user: "7", online: true, connections: 2, last_seen: null });
      tab.close();
      await becomes(async () => (await user(node, "7")).connections, 1);
      const before = Date.now();
      more.close();
      await becomes(async () => (await user(node, "7")).connections, 0);
      const gone = await until(async () => {
        const now = await user(node, "7");
        return !now.online && now;
      }, "offline");
      const seen = Date.parse(gone.last_seen);
      const [online, offline] = [await backend.call("online"), await backend.call("offline")];
      assert.deepEqual([online.user, offline.user, online.signed, online.last_seen], ["7", "7", true, undefined]);
      assert.equal(offline.last_seen, gone.last_seen);
      // Stores round and have clocks of their own, so a second of the grace period has to do.
      const grace = new Date(offline.time) - seen;
      assert.ok(grace >= 1000, `${gone.last_seen}, ${offline.time}: when the connection closed, not when the grace period ended`);
      assert.ok(seen >= before - 1000, `${gone.last_seen}: not before ${new Date(before).toISOString()}`);
      assert.ok(new Date(offline.time) - new Date(online.time) >= 1500);
      assert.deepEqual([backend.of("online").length, backend.of("offline").length], [1, 1]);
      const answer = await command(node, "/users", { users: ["nobody", 7] });
      assert.deepEqual(answer.json(), { users: [{ user: "nobody", online: false, connections: 0, last_seen: null }, gone] });
    });

    scenario("a page reload is not an absence, neither online nor in a room", async (s) => {
      const { backend, node } = await only(s, { presence: { grace: "10s", lease: "20s" } });
      const watcher = await s.io(node, { token: token("1"), ...WEBSOCKET }).connected();
      await watcher.ask("join_chat", 1);
      let tab = await s.io(node, { token: token("2"), ...WEBSOCKET }).connected();
      await tab.ask("join_chat", 1);
      await watcher.event("user_joined");
      for (let reload = 0; reload < 3; reload += 1) {
        tab.close();
        await becomes(() => room(node, "chat:1"), "1 1,2");
        await becomes(async () => (await user(node, "2")).connections, 0);
        assert.equal((await user(node, "2")).online, true);
        tab = await s.io(node, { token: token("2"), ...WEBSOCKET }).connected();
        await tab.ask("join_chat", 1);
        await becomes(() => room(node, "chat:1"), "2 1,2");
      }
      await becomes(async () => backend.of("online").length, 2);
      tab.close();
      await until(() => watcher.argsOf("user_left").length === 1, "user_left", 40_000);
      await backend.call("offline");
      assert.deepEqual([watcher.argsOf("user_joined").length, backend.of("online").length, backend.of("offline").length], [1, 2, 1]);
    });

    scenario("occupied and vacated are sent for rooms with presence, also for sessions without a user", async (s) => {
      const { backend, node } = await only(s, { auth: { anonymous: true }, rooms: [{ match: "seat:<n>", join: "allow", presence: true }, { match: "plain:<n>", join: "allow" }] });
      const guest = await s.io(node, { ...WEBSOCKET }).connected();
      await guest.ask("join_plain", 1);
      await guest.ask("join_seat", 1);
      const occupied = await backend.call("occupied");
      assert.deepEqual([occupied.room, occupied.namespace], ["seat:1", "/"]);
      const other = await s.io(node, { ...WEBSOCKET }).connected();
      await other.ask("join_seat", 1);
      await becomes(() => room(node, "seat:1"), "2 ");
      await guest.ask("leave_seat", 1);
      await other.ask("leave_seat", 1);
      assert.equal((await backend.call("vacated")).room, "seat:1");
      assert.deepEqual(backend.calls.map((call) => call.type), ["occupied", "vacated"]);
    });

    scenario("a connection in several namespaces counts as one connection of its user", async (s) => {
      const { backend, node } = await only(s, { socketio: { namespaces: ["/", "/chat"] } });
      const main = await s.io(node, { token: token("7"), ...WEBSOCKET, forceNew: false }).connected();
      const chat = main.socket.io.socket("/chat", { auth: { token: token("7") } });
      chat.connect();
      await until(() => chat.connected, "the second namespace");
      await becomes(async () => (await user(node, "7")).connections, 1);
      const second = await s.io(node, { token: token("7"), ...WEBSOCKET }).connected();
      await becomes(async () => (await user(node, "7")).connections, 2);
      main.socket.io.engine.close();
      main.close();
      await becomes(async () => (await user(node, "7")).connections, 1);
      assert.equal((await user(node, "7")).online, true);
      second.close();
      await backend.call("offline");
    });

    scenario("rooms without presence are counted too, names are decoded, and invalid requests are refused", async (s) => {
      const { node } = await only(s);
      const client = await s.io(node, { token: token("7"), ...WEBSOCKET }).connected();
      await client.ask("join_plain", "a b/ü+%");
      await becomes(() => room(node, `plain:${encodeURIComponent("a b/ü+%")}`), "1 7");
      assert.deepEqual((await ask(node, "/rooms/nowhere")).json(), { room: "nowhere", namespace: "/", connections: 0, users: [] });
      assertError(await node.get("/rooms/a"), 401);
      assertError(await node.get("/users/a", { authorization: "Bearer wrong" }), 401);
      assertError(await ask(node, "/rooms/%ff"), 400);
      assertError(await ask(node, `/rooms/${"x".repeat(300)}`), 400, "bad_room");
      assertError(await ask(node, "/rooms/a?namespace=/none"), 400, "bad_namespace");
      assertError(await ask(node, "/users/%0a"), 400);
      assertError(await command(node, "/users", { users: Array(1001).fill("a") }), 400, "bad_field");
      assertError(await command(node, "/users", { users: [""] }), 400, "bad_field");
      assertError(await command(node, "/rooms/a", {}), 405);
    });

    scenario("if a rule with presence matches a room for one user, every user in the room is counted", async (s) => {
      const { node } = await only(s, {
        rooms: [{ match: "desk:{user}", join: "allow", presence: true }, { match: "desk:<n>", join: "allow" }],
        on: [{ event: "sit", join: "desk:{0}", ack: [{ ok: true }] }],
      });
      for (const name of ["7", "8"]) {
        const client = await s.io(node, { token: token(name), ...WEBSOCKET }).connected();
        assert.deepEqual(await client.ask("sit", 7), ok);
      }
      await becomes(() => room(node, "desk:7"), "2 7,8");
    });

    scenario("a token without a claim that `joined` names is refused the room", async (s) => {
      const { node } = await only(s);
      const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
      const [{ error }] = await client.ask("join_chat", 1);
      assert.match(error.message, /claims\.name/);
      assert.equal(await room(node, "chat:1"), "0 ");
    });
  });
}

suite("presence on several nodes", () => {
  scenario("a user on two nodes is one user, in rooms with and without presence", async (s) => {
    const { backend, nodes: [a, b] } = await cluster(s, 2);
    const watcher = await s.io(a, { token: token("1"), ...WEBSOCKET }).connected();
    await watcher.ask("join_chat", 1);
    const here = await s.io(a, { token: token("2"), ...WEBSOCKET }).connected();
    const there = await s.io(b, { token: token("2"), ...POLLING }).connected();
    for (const client of [here, there]) for (const kind of ["chat", "plain"]) await client.ask(`join_${kind}`, 1);
    for (const node of [a, b]) {
      await becomes(() => room(node, "chat:1"), "3 1,2");
      await becomes(() => room(node, "plain:1"), "2 2");
      await becomes(async () => (await user(node, "2")).connections, 2);
    }
    here.close();
    await becomes(() => room(b, "chat:1"), "2 1,2");
    there.close();
    await watcher.event("user_left");
    await backend.call("offline");
    assert.deepEqual([watcher.argsOf("user_joined").length, watcher.argsOf("user_left").length], [1, 1]);
    assert.deepEqual(backend.calls.map((call) => `${call.type} ${call.user ?? call.room}`).sort(), ["occupied chat:1", "offline 2", "online 1", "online 2"]);
  });

  scenario("kill -9 of a node: users who reconnect elsewhere stay online, the others go offline once, and nobody is left behind", async (s) => {
    const { backend, store, nodes: [a, b, c] } = await cluster(s, 3, { presence: { grace: "500ms", lease: "6s" } });
    const watcher = await s.io(b, { token: token("1"), ...WEBSOCKET }).connected();
    await watcher.ask("join_chat", 1);
    const balancer = await s.proxy(a);
    const mover = await s.io(balancer, { token: token("2"), ...WEBSOCKET }).connected();
    const loser = await s.io(a, { token: token("3"), ...WEBSOCKET, reconnection: false }).connected();
    for (const client of [mover, loser]) await client.ask("join_chat", 1);
    await until(() => watcher.argsOf("user_joined").length === 2, "both announced");
    await becomes(async () => backend.of("online").length, 3);
    balancer.target = c;
    const before = Date.now();
    await a.stop("SIGKILL");
    const killed = Date.now();
    await until(() => mover.connects === 2 && mover.socket.connected, "the moving user connected elsewhere");
    assert.equal(mover.socket.recovered, true);
    const offline = await until(() => backend.of("offline")[0], "offline after the lease", 40_000);
    assert.deepEqual([offline.user, Date.parse(offline.last_seen) - killed < 1000], ["3", true]);
    // The lease began anew when the node last wrote it, up to a third of it before, or somewhat more on a busy machine.
    assert.ok(Date.now() - before >= 2_500, "not before the lease ends");
    assert.deepEqual(await watcher.event("user_left"), [{ userId: "3", chatId: "1" }]);
    for (const node of [b, c]) await becomes(() => room(node, "chat:1"), "2 1,2");
    assert.equal((await user(b, "2")).online, true);
    await published(b, { room: "chat:1", event: "end", data: 0 });
    await Promise.all([watcher.event("end"), mover.event("end")]);
    assert.deepEqual([watcher.argsOf("user_joined").length, watcher.argsOf("user_left").length, backend.of("offline").length, backend.of("online").length], [2, 1, 1, 3]);
    await b.stop();
    assert.doesNotMatch(await store.cli("ACL", "LOG"), /^roomcast$/m);
  });

  scenario("a rolling restart: users who reconnect elsewhere stay online", async (s) => {
    const { backend, nodes: [a, b] } = await cluster(s, 2, { presence: { grace: "8s", lease: "1m" } });
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token: token("2"), ...WEBSOCKET }).connected();
    await client.ask("join_chat", 1);
    await backend.call("online");
    const lost = await s.io(a, { token: token("3"), ...WEBSOCKET, reconnection: false }).connected();
    await backend.call("online", 2);
    balancer.target = b;
    await a.stop();
    await until(() => client.connects === 2, "the client on the other node");
    assert.equal((await backend.call("offline")).user, "3", "offline after the grace period, without waiting for the lease: the node announced its stop");
    await becomes(() => room(b, "chat:1"), "1 2");
    assert.deepEqual([backend.of("online").length, backend.of("offline").length, lost.socket.connected], [2, 1, false]);
  });

  scenario("the users of a node that hangs past its lease go offline, and come online again when it is back", async (s) => {
    const { backend, nodes: [a, b] } = await cluster(s, 2, { presence: { grace: "200ms", lease: "6s" } });
    const client = await s.io(a, { token: token("2"), ...WEBSOCKET }).connected();
    await client.ask("join_chat", 1);
    await backend.call("online");
    a.signal("SIGSTOP");
    try {
      await backend.call("offline");
      assert.equal((await user(b, "2")).online, false);
      await becomes(() => room(b, "chat:1"), "0 ");
    } finally {
      a.signal("SIGCONT");
    }
    await backend.call("online", 2);
    await becomes(() => room(b, "chat:1"), "1 2");
    await becomes(async () => (await user(b, "2")).last_seen, null);
  });

  scenario("Redis loses its data: presence is written again, and nothing is announced", async (s) => {
    // Longer than every client needs to connect again.
    const { backend, store, nodes: [a, b] } = await cluster(s, 2, { presence: { grace: "10s", lease: "30s" } });
    // As a frontend does: it joins again after every connection.
    const member = async (node, who) => {
      const client = await s.io(node, { token: token(who), ...WEBSOCKET }).connected();
      client.socket.on("connect", () => client.socket.emit("join_chat", 1));
      await client.ask("join_chat", 1);
      return client;
    };
    const [watcher, here, there] = [await member(a, "1"), await member(a, "2"), await member(b, "2")];
    await watcher.event("user_joined");
    await backend.call("online", 2);
    const before = backend.calls.length;
    await store.cli("FLUSHALL");
    await until(() => [watcher, here, there].every((client) => client.connects === 2), "every client connected again");
    await until(async () => (await user(b, "2").catch(() => ({}))).connections === 2, "both connections counted again");
    here.close();
    await until(async () => (await user(b, "2")).connections === 1 && (await user(a, "1")).online, "one connection");
    await becomes(() => room(b, "chat:1"), "2 1,2");
    assert.deepEqual(backend.calls.slice(before).map((call) => `${call.type} ${call.user}`), []);
    there.close();
    await backend.call("offline");
    await until(() => watcher.argsOf("user_left").length === 1, "user_left");
    assert.deepEqual([watcher.argsOf("user_joined").length, backend.of("online").length, backend.of("offline").length], [1, 2, 1]);
  });

  scenario("Redis hangs: changes are announced when it is back", async (s) => {
    const { backend, store, nodes: [a, b] } = await cluster(s, 2, { presence: { grace: "300ms", lease: "1m" } });
    const watcher = await s.io(a, { token: token("1"), ...WEBSOCKET }).connected();
    const stays = await s.io(b, { token: token("2"), ...WEBSOCKET }).connected();
    const goes = await s.io(b, { token: token("3"), ...WEBSOCKET }).connected();
    await backend.call("online", 3);
    store.signal("SIGSTOP");
    assertError(await ask(a, "/users/7"), 503, "unavailable");
    assertError(await ask(a, "/rooms/chat:1"), 503, "unavailable");
    goes.close();
    const comes = await s.io(b, { token: token("4"), ...WEBSOCKET }).connected();
    store.signal("SIGCONT");
    assert.equal((await backend.call("online", 4)).user, "4");
    assert.equal((await backend.call("offline")).user, "3");
    assert.deepEqual([backend.of("online").length, backend.of("offline").length], [4, 1]);
    assert.ok([watcher, stays, comes].every((client) => client.connects === 1));
  });
});
