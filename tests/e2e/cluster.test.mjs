// Sessions over nodes: a client comes back anywhere, polls anywhere, and is reached by orders wherever it is.
import assert from "node:assert/strict";
import fs from "node:fs";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };
const own = (name, data, more) => ({ room: "user:7", event: name, data, ...more });

/** Nodes on one Redis. */
async function nodes({ redis, node }, count, more = {}) {
  const store = await redis();
  const all = await Promise.all(Array.from({ length: count }, () => node({ redis: { url: store.url }, ...more })));
  return [store, ...all];
}

/** Each new connection goes to the next node. */
async function roundRobin(proxy, ...targets) {
  let turn = 0;
  const balancer = await proxy(targets[0]);
  balancer.target = { get port() { return targets[turn++ % targets.length].port; } };
  return balancer;
}

async function back(client, connects) {
  await until(() => client.connects === connects && client.socket.connected, () => `connection ${connects}; now ${client.connects}`);
  return client.socket.recovered;
}

/** Waits until the record of the only session is in Redis; the time to write it is not part of what is tested. */
async function recorded(store, rooms) {
  await until(async () => {
    const keys = (await store.cli("--scan", "--pattern", "roomcast:{roomcast:events}:sessions:*")).trim().split("\n").filter(Boolean);
    const records = await Promise.all(keys.map((key) => store.cli("HVALS", key)));
    return records.some((record) => rooms.every((room) => record.includes(JSON.stringify(room))));
  }, `a record with ${rooms}`);
}

suite("cluster", () => {
  scenario("Socket.IO: the connection breaks and comes back on another node, several times in a row", async (s) => {
    const [, a, b] = await nodes(s, 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    await client.join("room:a");
    const { id } = client.socket;
    for (let turn = 1; turn <= 6; turn += 1) {
      balancer.target = turn % 2 ? b : a;
      await published(a, own("before", turn));
      await until(() => client.argsOf("before").length === turn, "the event before the cut");
      balancer.cut();
      await published(turn % 2 ? a : b, { room: "room:a", event: "missed", data: turn });
      assert.equal(await back(client, turn + 1), true, `turn ${turn}`);
      assert.equal(client.socket.id, id);
    }
    await published(b, { room: "room:a", event: "end", data: 0 });
    await client.event("end");
    assert.deepEqual(client.argsOf("missed"), [1, 2, 3, 4, 5, 6].map((turn) => [turn]));
    assert.deepEqual(client.argsOf("before"), [1, 2, 3, 4, 5, 6].map((turn) => [turn]));
  });

  scenario("Socket.IO: kill -9 of the node, with and without an event received, and after a volatile one", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const balancer = await s.proxy(a);
    const clients = await Promise.all(["7", "8", "9"].map((user) => s.io(balancer, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    for (const client of clients) await client.join("room:a");
    await published(a, own("first", 1));
    await published(a, { room: "user:9", event: "shout", args: ["a string"], volatile: true });
    await clients[0].event("first");
    await clients[2].event("shout");
    await recorded(store, ["user:7", "room:a"]);
    await recorded(store, ["user:8", "room:a"]);
    await recorded(store, ["user:9", "room:a"]);
    balancer.target = b;
    const ids = clients.map((client) => client.socket.id);
    await a.stop("SIGKILL");
    await published(b, { room: "room:a", event: "missed", data: 2 });
    for (const client of clients) {
      assert.equal(await back(client, 2), true);
      assert.deepEqual(await client.event("missed"), [2]);
    }
    assert.deepEqual(clients.map((client) => client.socket.id), ids);
    await published(b, { room: "room:a", event: "live", data: 3 });
    for (const client of clients) await client.event("live");
    assert.deepEqual(clients.map((client) => client.argsOf("missed").length), [1, 1, 1]);
    assert.equal(clients[0].argsOf("first").length, 1);
  });

  scenario("Socket.IO: a half-open connection on one node is replaced by one on another", async (s) => {
    const [, a, b] = await nodes(s, 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    await published(a, own("first", 1));
    await client.event("first");
    balancer.freeze();
    balancer.target = b;
    await published(b, own("missed", 2));
    client.socket.io.engine.close();
    client.socket.io.connect?.();
    client.socket.connect();
    assert.equal(await back(client, 2), true);
    await published(a, own("live", 3));
    await client.event("live");
    assert.deepEqual([client.argsOf("missed"), client.argsOf("live")], [[[2]], [[3]]]);
    await until(async () => (await a.metric('roomcast_closes_total{reason="replaced"}')) === 1, "the old one replaced");
    await until(async () => (await a.connections("socketio")) === 0, "the old connection is cut");
  });

  scenario("Socket.IO: nobody else gets a session, and one that ended is not brought back", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const client = await s.io(a, { token, ...WEBSOCKET }).connected();
    await published(a, own("first", 1));
    await client.event("first");
    await recorded(store, ["user:7"]);
    const stolen = { pid: client.socket._pid, offset: client.socket._lastOffset };
    const thief = await s.io(b, { auth: { token: tokenFor("8"), ...stolen }, ...WEBSOCKET }).connected();
    assert.notEqual(thief.socket.id, client.socket.id);
    await published(b, own("second", 2));
    await client.event("second");
    assert.equal(thief.argsOf("second").length, 0);
    client.socket.disconnect();
    await until(async () => (await a.connections("socketio")) === 0, "gone");
    const late = await s.io(b, { auth: { token, ...stolen }, ...WEBSOCKET }).connected();
    assert.notEqual(late.socket.id, client.socket.id);
    assert.equal(late.argsOf("second").length, 0);
  });

  scenario("polling through a balancer without sticky sessions", async (s) => {
    const [, a, b, c] = await nodes(s, 3);
    const balancer = await roundRobin(s.proxy, a, b, c);
    const polling = await s.io(balancer, { token, transports: ["polling"] }).connected();
    await polling.join("room:a");
    for (let n = 1; n <= 20; n += 1) {
      await published([a, b, c][n % 3], { room: "room:a", event: "n", data: n });
      assert.deepEqual(await polling.ask("say", "a", n), [{ ok: true }]);
    }
    await until(() => polling.argsOf("n").length === 20, () => `20 events, got ${polling.argsOf("n").length}`);
    assert.deepEqual(polling.argsOf("n"), Array.from({ length: 20 }, (_, n) => [n + 1]));
    assert.deepEqual([polling.connects, polling.disconnects], [1, []]);
    polling.close();
    const gone = async () => (await Promise.all([a, b, c].map((node) => node.connections("socketio")))).every((n) => n === 0);
    await until(gone, "the session is gone everywhere");
  });

  scenario("polling: the node that has the session is killed while another one waits for it; the client is not kept waiting", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, transports: ["polling"] }).connected();
    await client.join("room:a");
    await recorded(store, ["user:7", "room:a"]);
    balancer.target = b;
    // Answers the GET that waits on the first node; those that follow come over the second one.
    for (const name of ["first", "second"]) {
      await published(b, own(name, 1));
      await client.event(name);
    }
    assert.deepEqual([client.connects, client.disconnects], [1, []]);
    await a.stop("SIGKILL");
    await published(b, { room: "room:a", event: "missed", data: 2 });
    // Far less than a ping's 25 s.
    assert.deepEqual(await client.event("missed"), [2]);
  });

  scenario("the upgrade of a polling session comes to another node: it moves there, and nothing is lost", async (s) => {
    const [, a, b, c] = await nodes(s, 3);
    const balancer = await roundRobin(s.proxy, a, b, c);
    let sent = 0;
    let stop = false;
    const load = (async () => {
      while (!stop) await published([a, b, c][sent % 3], own("n", (sent += 1)));
    })();
    const clients = await Promise.all(Array.from({ length: 9 }, () => s.io(balancer, { token }).connected()));
    for (const client of clients) {
      await client.join("room:a");
      for (let n = 1; n <= 5; n += 1) assert.deepEqual(await client.ask("say", "a", n), [{ ok: true }]);
      await until(() => client.transport() === "websocket", "the WebSocket");
      assert.deepEqual(await client.ask("say", "a", 6), [{ ok: true }]);
    }
    const moved = async (node) => node.metric('roomcast_closes_total{reason="moved"}');
    const all = await Promise.all([a, b, c].map(moved));
    assert.ok(all.reduce((x, y) => x + y) >= 3, `some came to another node: ${all}`);
    stop = true;
    await load;
    await published(a, own("end", 0));
    for (const client of clients) {
      await client.event("end");
      const got = client.argsOf("n").map(([n]) => n);
      assert.deepEqual(got, Array.from({ length: sent - got[0] + 1 }, (_, n) => got[0] + n), "once, in order, without a hole");
      assert.deepEqual([client.connects, client.disconnects], [1, []]);
    }
    await until(async () => (await Promise.all([a, b, c].map((node) => node.connections("socketio")))).reduce((x, y) => x + y) === 9, "nine connections");
  });

  scenario("orders reach sessions of every node, before what is published next", async (s) => {
    const [, a, b] = await nodes(s, 2);
    const clients = await Promise.all([a, b, a, b].map((node) => s.io(node, { token, ...WEBSOCKET }).connected()));
    for (let n = 1; n <= 20; n += 1) {
      const answer = await command([a, b][n % 2], "/join", { user: "7", rooms: [`n:${n}`] });
      assert.deepEqual([answer.status, answer.json()], [200, { sessions: 4 }]);
      await published([b, a][n % 2], { room: `n:${n}`, event: "n", data: n });
    }
    await published(a, own("end", 0));
    for (const client of clients) {
      await client.event("end");
      assert.deepEqual(client.argsOf("n"), Array.from({ length: 20 }, (_, n) => [n + 1]));
    }
    assert.deepEqual((await command(b, "/leave", { in: "n:1", rooms: ["n:2"] })).json(), { sessions: 4 });
    assert.deepEqual((await command(b, "/disconnect", { session: clients[0].socket.id })).json(), { sessions: 1 });
    assert.equal(await clients[0].disconnected(), "io server disconnect");
    assert.deepEqual((await command(a, "/disconnect", { user: "7" })).json(), { sessions: 3 });
  });

  scenario("orders are obeyed by who was away: left rooms stay left, who was disconnected is", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const balancer = await s.proxy(a);
    const slow = { reconnectionDelay: 1500, reconnectionDelayMax: 1500, randomizationFactor: 0 };
    const [kicked, moved] = await Promise.all(["7", "8"].map((user) => s.io(balancer, { token: tokenFor(user), ...WEBSOCKET, ...slow }).connected()));
    for (const client of [kicked, moved]) await client.join("room:a");
    await recorded(store, ["user:7", "room:a"]);
    await recorded(store, ["user:8", "room:a"]);
    const id = kicked.socket.id;
    balancer.target = b;
    await a.stop("SIGKILL");
    await command(b, "/leave", { user: "8", rooms: ["room:a"] });
    await command(b, "/join", { user: "8", rooms: ["room:b"] });
    await command(b, "/disconnect", { user: "7" });
    assert.equal(await back(moved, 2), true);
    assert.equal(await back(kicked, 2), false);
    assert.notEqual(kicked.socket.id, id);
    await published(b, { room: "room:a", event: "a", data: 1 });
    await published(b, { room: "room:b", event: "b", data: 1 });
    await moved.event("b");
    assert.equal(moved.argsOf("a").length, 0);
  });

  scenario("with the least rights of docs/redis.md everything of this works, and a backend's rights are no node's", async (s) => {
    const lines = fs.readFileSync(new URL("../../docs/redis.md", import.meta.url), "utf8").split("\n").filter((line) => line.startsWith("ACL SETUSER"));
    const store = await s.redis();
    for (const line of lines) await store.cli(...line.replace("PASSWORD", "secret").split(" "));
    const url = store.url.replace("redis://", "redis://roomcast:secret@");
    const [a, b] = await Promise.all([s.node({ redis: { url } }), s.node({ redis: { url } })]);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    assert.deepEqual((await command(b, "/join", { user: "7", rooms: ["room:x"] })).json(), { sessions: 1 });
    await recorded(store, ["room:x"]);
    balancer.target = b;
    await a.stop("SIGKILL");
    await published(b, { room: "room:x", event: "missed", data: 1 });
    assert.equal(await back(client, 2), true);
    assert.deepEqual(await client.event("missed"), [1]);
    await published(b, own("volatile", 1, { volatile: true, id: "v" }));
    await client.event("volatile");
    const backend = ["--user", "backend", "--pass", "secret", "--no-auth-warning"];
    assert.match(await store.cli(...backend, "XADD", "roomcast:events", "*", "room", "room:x", "event", "added"), /^\d+-\d+/);
    await client.event("added");
    for (const refused of [["GET", "roomcast:{roomcast:events}:seal"], ["PUBLISH", "roomcast:node:0", "x"], ["XRANGE", "roomcast:events", "-", "+"]]) {
      assert.match(await store.cli(...backend, ...refused).catch((error) => error.message), /NOPERM/);
    }
    assert.doesNotMatch(await store.cli("ACL", "LOG"), /^roomcast$/m);
  });

  scenario("a letter that no node sealed is not read, and volatile events reach every node", async (s) => {
    const [store, a, b] = await nodes(s, 2);
    const client = await s.io(b, { token, ...WEBSOCKET }).connected();
    const names = (await store.cli("ZRANGE", "roomcast:{roomcast:events}:nodes", "0", "-1")).trim().split("\n");
    assert.equal(names.length, 2);
    for (const name of names) await store.cli("PUBLISH", `roomcast:node:${name}`, `${"0".repeat(64)}{"from":"${name}"}`);
    const refused = async (node) => (await node.metric('roomcast_drops_total{reason="malformed"}')) === 1;
    await until(async () => (await refused(a)) && (await refused(b)), "both have refused it");
    await published(a, own("volatile", 1, { volatile: true }));
    assert.deepEqual(await client.event("volatile"), [1]);
  });
});
