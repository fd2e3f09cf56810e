// /ws: the plain WebSocket protocol.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { PING } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

suite("plain WebSocket", () => {
  scenario("welcome, joined, event and left have every field of the protocol", async ({ node, ws }) => {
    const one = await node();
    const client = ws(one, { token: tokenFor("7") });
    const { type, session, user, heartbeat_seconds: heartbeat, ...rest } = await client.message("welcome");
    assert.deepEqual([type, user, rest], ["welcome", "7", {}]);
    assert.match(session, /^[\w-]{20}$/);
    assert.equal(heartbeat, 25);

    client.send({ type: "join", room: "room:a", id: "j1" });
    const joined = await client.message(({ id }) => id === "j1");
    assert.deepEqual([joined.type, joined.room], ["joined", "room:a"]);
    assert.equal(typeof joined.offset, "string");

    const first = await published(one, { room: "room:a", event: "one", data: { n: 1 } });
    const second = await published(one, { room: "room:a", event: "many", args: [1, "2"] });
    assert.deepEqual(await client.event("one"), { type: "event", room: "room:a", event: "one", data: { n: 1 }, offset: first });
    assert.deepEqual(await client.event("many"), { type: "event", room: "room:a", event: "many", args: [1, "2"], offset: second });

    client.send({ type: "leave", room: "room:a", id: 5 });
    assert.deepEqual(await client.message("left"), { type: "left", room: "room:a", id: 5 });
    await published(one, { room: "room:a", event: "after", data: 0 });
    await published(one, { room: "user:7", event: "end", data: 0 });
    await client.event("end");
    assert.deepEqual(client.eventsOf("after"), []);
  });

  scenario("the token is accepted in the query, header, subprotocol and first message", async ({ node, ws }) => {
    const one = await node();
    const token = tokenFor("7");
    const byProtocol = ws(one, { protocols: ["roomcast", `token.${token}`] });
    const byMessage = ws(one);
    const clients = [ws(one, { token }), ws(one, { headers: { authorization: `Bearer ${token}` } }), byProtocol, byMessage];
    byMessage.socket.on("open", () => byMessage.send({ type: "auth", token }));
    await Promise.all(clients.map((client) => client.welcomed()));
    assert.equal(byProtocol.socket.protocol, "roomcast", "without the token");
    await published(one, { room: "user:7", event: "hello", data: 1 });
    await Promise.all(clients.map((client) => client.event("hello")));
  });

  scenario("a missing, late or bad token closes with 4401", async ({ node, ws }) => {
    const one = await node({ socketio: { connect_timeout: "3s" } });
    const silent = ws(one);
    const hasty = ws(one);
    hasty.socket.on("open", () => hasty.send({ type: "join", room: "room:a", id: 1 }));
    const wrong = ws(one);
    wrong.socket.on("open", () => wrong.send({ type: "auth", token: "not a token" }));
    for (const client of [silent, hasty, wrong, ws(one, { token: "x" })]) {
      assert.equal((await client.ended()).code, 4401);
      assert.ok(!client.messages.some(({ type }) => type === "welcome" || type === "joined"));
    }
  });

  scenario("a refused room is an error with the request's id, and the connection stays open", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    for (const room of ["closed:1", "unruled", "user:8", "", "x".repeat(201), "room:a\nb", "room:", "room:a:b"]) {
      const answer = await client.ask({ type: "join", room });
      assert.equal(answer.type, "error", `${room}: ${JSON.stringify(answer)}`);
      assert.match(answer.code, /^[a-z_]+$/);
      assert.ok(answer.message);
    }
    await client.join("room:a", "user:7");
    assert.equal((await client.ask({ type: "join", room: "room:a" })).type, "joined", "a second join of the same room succeeds");
    await published(one, { room: "room:a", event: "once", data: 0 });
    await published(one, { room: "user:7", event: "end", data: 0 });
    await client.event("end");
    assert.equal(client.eventsOf("once").length, 1);
  });

  scenario("an event runs its [[on]] rule: acknowledged with data or args, refused with the request's id, emitted to the others", async ({ node, ws }) => {
    const one = await node();
    const [sender, other] = [ws(one, { token: tokenFor("7") }), ws(one, { token: tokenFor("8") })];
    await Promise.all([sender, other].map(async (client) => (await client.welcomed()).join("room:a")));
    const answer = await sender.ask({ type: "event", event: "say", args: ["a", { text: "hi" }] });
    assert.deepEqual([answer.type, answer.data], ["ack", { ok: true }]);
    const said = await other.event("said");
    assert.deepEqual([said.room, said.args], ["room:a", ["7", { text: "hi" }]]);
    assert.deepEqual((await sender.ask({ type: "event", event: "echo", data: [1] })).data, [1]);
    assert.deepEqual((await sender.ask({ type: "event", event: "echo", args: [1, 2] })).args, [1, 2]);
    const refused = await sender.ask({ type: "event", event: "no such event", data: 1 });
    assert.deepEqual([refused.type, Object.keys(refused.data.error)], ["ack", ["code", "message"]]);
    assert.deepEqual(sender.eventsOf("said"), [], "not to the caller without include_caller");
  });

  scenario("a malformed message gets an error or a close with a reason; ping is answered", async ({ node, ws }) => {
    const one = await node();
    const bad = ["{", "[]", "null", "1", '"x"', "{}", '{"type":1}', '{"type":"nope"}', '{"type":"join"}', '{"type":"join","room":7}',
      '{"type":"event"}', '{"type":"event","event":"echo","data":1,"args":[2]}', '{"type":"event","event":"echo","args":{}}'];
    for (const text of bad) {
      const client = await ws(one, { token: tokenFor("7") }).welcomed();
      client.send(text);
      const outcome = await until(
        () => client.end ?? client.messages.find(({ type }) => type === "error"),
        () => `an error for ${text}; got ${JSON.stringify(client.messages)}`,
      );
      assert.ok(outcome.type === "error" ? outcome.code && outcome.message : [1002, 1003, 1007, 1008].includes(outcome.code), text);
      client.close();
    }
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    client.send({ type: "ping" });
    assert.deepEqual(await client.message("pong"), { type: "pong" });
  });

  scenario("binary values arrive as $binary, and volatile events arrive", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    await published(one, { room: "user:7", event: "file", data: { $binary: "AP8=" } });
    await published(one, { room: "user:7", event: "v", data: 1, volatile: true });
    assert.deepEqual((await client.event("file")).data, { $binary: "AP8=" });
    await client.event("v");
  });

  scenario("a join with `since` replays missed events, or answers recovered: false", async ({ node, ws }) => {
    const one = await node();
    const client = await (await ws(one, { token: tokenFor("7") }).welcomed()).join("room:a");
    const since = await published(one, { room: "room:a", event: "seen", data: 0 });
    await client.event("seen");
    client.close();
    await published(one, { room: "room:a", event: "missed", data: 1 });
    const back = await ws(one, { token: tokenFor("7") }).welcomed();
    const joined = await back.ask({ type: "join", room: "room:a", since });
    assert.equal(joined.type, "joined");
    assert.equal(typeof joined.recovered, "boolean");
    await published(one, { room: "room:a", event: "end", data: 2 });
    await back.event("end");
    assert.equal(back.eventsOf("missed").length, joined.recovered ? 1 : 0, "`recovered` matches what was replayed");
    const poison = await back.ask({ type: "join", room: "room:b", since: "poison" });
    assert.deepEqual([poison.type, poison.recovered ?? poison.code !== undefined], [poison.type, poison.type === "error"]);
  });

  scenario("a join with `since` of a room that it was let into later brings all of what it had before that", async ({ node, ws }) => {
    const one = await node();
    const since = await published(one, { room: "room:a", event: "seen", data: 0 });
    await published(one, { room: "room:a", event: "missed", data: 1 });
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    await published(one, { room: "room:a", event: "missed", data: 2 });
    await command(one, "/join", { user: "7", room: "room:a" });
    await client.message("joined");
    const joined = await client.ask({ type: "join", room: "room:a", since });
    assert.equal(joined.recovered, true);
    await until(() => client.eventsOf("missed").length === 2, () => `both; got ${JSON.stringify(client.eventsOf("missed"))}`);
  });

  scenario("a client that answers pings stays connected, and one that does not is closed", async ({ node, ws, raw }) => {
    const one = await node({ socketio: { ping_interval: "200ms", ping_timeout: "5s" } });
    const answers = await ws(one, { token: tokenFor("7") }).welcomed();
    let pings = 0;
    answers.socket.on("ping", () => (pings += 1));
    const silent = raw(one);
    await silent.upgrade(`/ws?token=${tokenFor("8")}`);
    await silent.frame(PING);
    assert.equal(await silent.closeCode(), 1001);
    await until(() => pings >= 3, "three pings");
    assert.equal(answers.end, undefined);
  });

  scenario("/disconnect closes with 4403", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    assert.deepEqual((await command(one, "/disconnect", { user: "7" })).json(), { sessions: 1 });
    assert.equal((await client.ended()).code, 4403);
  });
});
