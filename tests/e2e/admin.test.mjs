// /join, /leave and /disconnect: what a backend may do to sessions.
import assert from "node:assert/strict";
import { request } from "../harness/http.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

async function sessions(node, path, body) {
  const answer = await command(node, path, body);
  assert.equal(answer.status, 200, answer.text);
  return answer.json().sessions;
}

/** Publishes to the room, then an end to everybody; how many of the clients got it. */
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

suite("admin", () => {
  scenario("join and leave by user, by session, and by room", async ({ node, io, ws }) => {
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

  scenario("a namespace has its own rooms", async ({ node, io }) => {
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

  scenario("disconnect by session and by room", async ({ node, io, ws, sse }) => {
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
    await published(one, { room: "user:2", event: "end", data: 1 });
    await stays.event("end");
    assert.equal(await sessions(one, "/disconnect", { user: "2" }), 1);
    assert.equal(await sessions(one, "/disconnect", { user: "2" }), 0);
  });

  scenario("malformed requests and keys", async ({ node }) => {
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
});
