// POST /join, /leave and /disconnect: what a backend can do to sessions, on one node and on several.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn, reconnected, recorded } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };

async function sessions(node, path, body) {
  const answer = await command(node, path, body);
  assert.equal(answer.status, 200, answer.text);
  return answer.json().sessions;
}

/** Publishes to the room, then an end to everybody, and resolves with how many of the clients got the first. */
async function reached(node, clients, room, namespace) {
  const event = `probe ${Math.random()}`;
  await published(node, { room, event, data: 1, namespace });
  await published(node, { rooms: ["user:1", "user:2"], event: `end of ${event}`, data: 1, namespace });
  let count = 0;
  for (const client of clients) {
    await client.event(`end of ${event}`);
    count += (client.argsOf?.(event) ?? client.eventsOf(event)).length;
  }
  return count;
}

suite("commands", () => {
  scenario("join and leave apply to a user, a session or a room", async ({ node, io, ws }) => {
    const one = await node();
    const clients = [
      await io(one, { token: tokenFor("1"), transports: ["websocket"] }).connected(),
      await io(one, { token: tokenFor("1"), transports: ["polling"] }).connected(),
      await ws(one, { token: tokenFor("1") }).welcomed(),
      await ws(one, { token: tokenFor("2") }).welcomed(),
    ];
    assert.equal(await sessions(one, "/join", { user: "1", rooms: ["team:x", "team:y"] }), 3);
    assert.equal(await reached(one, clients, "team:x"), 3);
    assert.equal(await reached(one, clients, "team:y"), 3);
    assert.equal(await sessions(one, "/join", { in: "team:x", rooms: ["team:z"] }), 3);
    assert.equal(await reached(one, clients, "team:z"), 3);
    const session = clients[3].messages[0].session;
    assert.equal(await sessions(one, "/join", { session, rooms: ["team:z"] }), 1);
    assert.equal(await reached(one, clients, "team:z"), 4);
    assert.equal(await sessions(one, "/leave", { session: clients[0].socket.id, rooms: ["team:z"] }), 1);
    assert.equal(await reached(one, clients, "team:z"), 3);
    assert.equal(await sessions(one, "/leave", { in: "team:z", rooms: ["team:z", "team:y"] }), 3);
    assert.equal(await reached(one, clients, "team:z"), 0);
    assert.equal(await reached(one, clients, "team:y"), 1, "the session that had left team:z keeps team:y");
    assert.equal(await sessions(one, "/join", { user: "nobody", rooms: ["team:x"] }), 0);
  });

  scenario("a command applies to its namespace only", async ({ node, io }) => {
    const one = await node({
      socketio: { namespaces: ["/", "/chat"] },
      rooms: [{ match: "user:{user}", join: "auto" }],
    });
    const chat = await io(one, { token: tokenFor("1"), namespace: "/chat" }).connected();
    assert.equal(await sessions(one, "/join", { user: "1", rooms: ["team:x"], namespace: "/chat" }), 1);
    await published(one, { room: "team:x", event: "main", data: 1 });
    await published(one, { room: "team:x", event: "chat", data: 1, namespace: "/chat" });
    await chat.event("chat");
    assert.deepEqual(chat.argsOf("main"), []);
  });

  scenario("disconnect applies to a session or a room", async ({ node, io, ws, sse }) => {
    const one = await node();
    const byId = await io(one, { token: tokenFor("1") }).connected();
    const inRoom = await (await ws(one, { token: tokenFor("2") }).welcomed()).join("room:a");
    const stays = await ws(one, { token: tokenFor("2") }).welcomed();
    const stream = await sse(one, { token: tokenFor("2"), rooms: ["room:a"] }).answered();
    assert.equal(await sessions(one, "/disconnect", { session: byId.socket.id }), 1);
    assert.equal(await byId.disconnected(), "io server disconnect");
    assert.equal(await sessions(one, "/disconnect", { in: "room:a" }), 2);
    assert.equal((await inRoom.ended()).code, 4403);
    assert.equal(stream.status, 200);
    await until(() => stream.ended, "the stream's end");
    await published(one, { room: "user:2", event: "end", data: 1 });
    await stays.event("end");
    assert.equal(await sessions(one, "/disconnect", { user: "2" }), 1);
    assert.equal(await sessions(one, "/disconnect", { user: "2" }), 0);
  });

  scenario("malformed requests and wrong keys are refused", async ({ node }) => {
    const one = await node();
    const bad = [
      "{", [], {}, { user: "1" }, { rooms: ["a"] }, { user: "1", session: "x", rooms: ["a"] }, { user: "1", rooms: "a" },
      { user: "1", rooms: [] }, { user: "1", rooms: [""] }, { user: "1", rooms: ["a"], colour: "red" }, { user: "1", rooms: ["a"], namespace: "chat" },
      { user: {}, rooms: ["a"] },
    ];
    for (const path of ["/join", "/leave"]) {
      for (const body of bad) assertError(await command(one, path, body), 400);
    }
    for (const body of ["{", {}, { user: "1", in: "a" }, { rooms: ["a"] }]) assertError(await command(one, "/disconnect", body), 400);
    for (const path of ["/join", "/leave", "/disconnect"]) {
      for (const key of [null, "wrong"]) assertError(await command(one, path, { user: "1", rooms: ["a"] }, { key }), 401);
      assertError(await request(one.url + path), 405);
    }
  });

  scenario("a command reaches the sessions of every node before what is published next", async (s) => {
    const [a, b] = await nodesOn(s, await s.redis(), 2);
    const clients = await Promise.all([a, b, a, b].map((node) => s.io(node, { token, ...WEBSOCKET }).connected()));
    for (let n = 1; n <= 20; n += 1) {
      const answer = await command([a, b][n % 2], "/join", { user: "7", rooms: [`n:${n}`] });
      assert.deepEqual([answer.status, answer.json()], [200, { sessions: 4 }]);
      await published([b, a][n % 2], { room: `n:${n}`, event: "n", data: n });
    }
    for (const client of clients) {
      // With partitions, only what goes to one room has an order.
      const got = () => client.argsOf("n").map(([n]) => n).toSorted((x, y) => x - y);
      await until(() => client.argsOf("n").length >= 20, () => `20 events; got ${got()}`);
      assert.deepEqual(got(), Array.from({ length: 20 }, (_, n) => n + 1));
    }
    assert.deepEqual((await command(b, "/leave", { in: "n:1", rooms: ["n:2"] })).json(), { sessions: 4 });
    assert.deepEqual((await command(b, "/disconnect", { session: clients[0].socket.id })).json(), { sessions: 1 });
    assert.equal(await clients[0].disconnected(), "io server disconnect");
    assert.deepEqual((await command(a, "/disconnect", { user: "7" })).json(), { sessions: 3 });
  });

  scenario("commands apply to sessions that were away: rooms left stay left, a disconnected session is not recovered", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const balancer = await s.proxy(a);
    const [kicked, moved] = await Promise.all(["7", "8"].map((user) => s.io(balancer, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    for (const client of [kicked, moved]) await client.join("room:a");
    await recorded(store, "user:7", "room:a");
    await recorded(store, "user:8", "room:a");
    const id = kicked.socket.id;
    // They stay away until all is commanded.
    balancer.up = false;
    balancer.target = b;
    await a.stop("SIGKILL");
    for (const client of [kicked, moved]) await client.disconnected();
    await command(b, "/leave", { user: "8", rooms: ["room:a"] });
    await command(b, "/join", { user: "8", rooms: ["room:b"] });
    await command(b, "/disconnect", { user: "7" });
    balancer.up = true;
    assert.equal(await reconnected(moved, 2), true);
    assert.equal(await reconnected(kicked, 2), false);
    assert.notEqual(kicked.socket.id, id);
    await published(b, { room: "room:a", event: "a", data: 1 });
    await published(b, { rooms: ["room:a", "room:b"], event: "b", data: 1 });
    await moved.event("b");
    assert.equal(moved.argsOf("a").length, 0);
  });
});
