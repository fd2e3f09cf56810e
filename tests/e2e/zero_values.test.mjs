// Typed languages send every field: `null`, an empty text and an empty list count as missing.
import assert from "node:assert/strict";
import Redis from "ioredis";
import { startBackend } from "../harness/backend.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");

suite("zero values of typed languages", () => {
  scenario("in POST /publish count as missing", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token }).welcomed();
    const zero = { room: "", rooms: ["user:7"], args: null, except: null, namespace: "", volatile: null, id: "" };
    await published(one, { event: "data", data: { n: 1 }, ...zero });
    assert.deepEqual((await client.event("data")).data, { n: 1 });
    await published(one, { room: "user:7", rooms: null, event: "args", data: null, args: [1, 2] });
    assert.deepEqual((await client.event("args")).args, [1, 2]);
    await published(one, { room: "user:7", event: "null", data: null });
    assert.equal((await client.event("null")).data, null, "alone, null is an argument");
    assertError(await command(one, "/publish", { room: "user:7", event: "e", data: 1, args: [1] }), 400, "bad_field");
    await published(one, { room: "user:7", event: "empty args", data: 1, args: [], events: null });
    assert.equal((await client.event("empty args")).data, 1);
    const batch = { room: null, event: null, data: null, args: [], events: [{ room: "user:7", event: "batch" }] };
    assert.equal((await command(one, "/publish", batch)).status, 200);
    await client.event("batch");
    assertError(await command(one, "/publish", { ...batch, room: "user:8" }), 400, "bad_field");
  });

  scenario("in POST /users count as missing", async ({ node }) => {
    const one = await node();
    assert.deepEqual((await command(one, "/users", { users: null })).json(), { users: [] });
    assertError(await command(one, "/users", {}), 400, "bad_json");
  });

  scenario("in stream entries count as missing", async ({ node, redis, ws }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const client = await ws(one, { token }).welcomed();
    const publisher = new Redis(store.url);
    const zero = ["args", "", "except", "", "namespace", "", "volatile", "", "id", ""];
    await publisher.xadd("roomcast:events", "*", "room", "", "rooms", '["user:7"]', "event", "e", "data", '{"n":1}', ...zero);
    await publisher.xadd("roomcast:events", "*", "room", "user:7", "rooms", "null", "event", "f", "data", "2", "args", "[]", "except", "null");
    await publisher.quit();
    assert.deepEqual((await client.event("e")).data, { n: 1 });
    assert.equal((await client.event("f")).data, 2);
  });

  scenario("in answers of the backend count as missing", async (s) => {
    const backend = s.serve(await startBackend());
    const rooms = [{ match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "ask" }];
    const one = await s.node({ ...backend.config(), rooms, on: [{ event: "ask", forward: true }] });
    const client = await s.ws(one, { token }).welcomed();
    const emit = { room: "", rooms: ["user:7"], except: null, volatile: null, event: "emitted", data: 1, args: [] };
    backend.answer = (call) =>
      call.type === "join"
        ? { allow: call.room === "room:open", error: "" }
        : { ack: [{ ok: true }], error: "", reply: [{ event: "replied", args: [1, 2], data: null, room: "", rooms: null, except: [], volatile: false, namespace: "", id: "" }], emit: [emit], join: null, leave: [] };
    assert.deepEqual((await client.ask({ type: "event", event: "ask" })).data, { ok: true });
    assert.deepEqual((await client.event("replied")).args, [1, 2]);
    assert.equal((await client.event("emitted")).data, 1);
    assert.equal((await client.ask({ type: "join", room: "room:open" })).type, "joined");
    const refused = await client.ask({ type: "join", room: "room:closed" });
    assert.deepEqual([refused.type, refused.message], ["error", "not allowed to join this room"]);
  });

  scenario("in messages of /ws count as missing", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token }).welcomed();
    const zero = { token: "", room: "", since: "", event: "", data: null, args: null, id: null };
    client.send({ ...zero, type: "join", room: "room:a" });
    assert.equal((await client.message("joined")).recovered, undefined);
    client.send({ ...zero, type: "event", event: "echo", data: { n: 1 }, id: 7 });
    assert.deepEqual((await client.message("ack")).data, { n: 1 });
    const { id, ...withoutId } = zero;
    const answer = await client.ask({ ...withoutId, type: "event", event: "echo", data: { n: 2 }, args: [] });
    assert.deepEqual(answer.data, { n: 2 });
    client.send({ ...zero, type: "ping" });
    await client.message("pong");
    client.send({ ...zero, type: "leave", room: "room:a" });
    await client.message("left");
  });

  scenario("in /join, /leave and /disconnect count as missing; `room` may replace `rooms`", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token }).welcomed();
    const zero = { user: null, session: "", in: "", room: "", rooms: null, namespace: "" };
    assert.deepEqual((await command(one, "/join", { ...zero, user: "7", room: "room:a" })).json(), { sessions: 1 });
    await published(one, { room: "room:a", event: "in a" });
    await client.event("in a");
    assert.deepEqual((await command(one, "/join", { ...zero, in: "room:a", rooms: ["room:b"] })).json(), { sessions: 1 });
    assert.deepEqual((await command(one, "/leave", { ...zero, in: "room:b", room: "room:a" })).json(), { sessions: 1 });
    assertError(await command(one, "/join", { user: "7", room: "a", rooms: ["b"] }), 400, "bad_field");
    assertError(await command(one, "/join", { ...zero, user: "7" }), 400, "bad_field");
    assertError(await command(one, "/join", { ...zero, room: "a" }), 400, "bad_field");
    assert.deepEqual((await command(one, "/disconnect", { ...zero, user: "7" })).json(), { sessions: 1 });
  });
});
