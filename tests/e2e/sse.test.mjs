// Server-Sent Events, with the `eventsource` package and a raw reader.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

suite("Server-Sent Events", () => {
  scenario("an EventSource gets the events of its rooms, each with its name and offset", async ({ node, eventSource }) => {
    const one = await node();
    const names = ["news", "many", "none", "end", "elsewhere"];
    const client = await eventSource(one, { token: tokenFor("7"), rooms: ["room:a", "room:b"], names }).opened();
    await published(one, { room: "room:c", event: "elsewhere", data: 1 });
    const offset = await published(one, { room: "room:a", event: "news", data: { id: 1, text: "é\n" } });
    await published(one, { room: "room:b", event: "many", args: [1, "2"] });
    await published(one, { rooms: ["room:a", "room:b"], event: "end", data: null });
    await client.event("end");
    const seen = client.events.map(({ name, data }) => [name, JSON.parse(data)]);
    assert.deepEqual(seen, [["news", { id: 1, text: "é\n" }], ["many", [1, "2"]], ["end", null]]);
    assert.equal(client.events[0].lastEventId, offset);
  });

  scenario("the answer's headers are right, and automatic rooms, events without arguments, several lines and volatile events work", async ({ node, sse }) => {
    const one = await node();
    const client = await sse(one, { headers: { authorization: `Bearer ${tokenFor("7")}` }, rooms: ["room:a"] }).answered();
    assert.equal(client.status, 200);
    assert.match(client.headers["content-type"], /^text\/event-stream/);
    assert.match(client.headers["cache-control"], /no-(store|cache)/);
    await published(one, '{"room":"room:a","event":"lines","data":{\n"a": 1,\r\n"b": 2\n}}');
    await published(one, { room: "room:a", event: "empty", args: [] });
    await published(one, { room: "user:7", event: "own", data: "x" });
    await published(one, { room: "room:a", event: "v", data: 1, volatile: true });
    await client.event("v");
    assert.deepEqual(JSON.parse((await client.event("lines")).data), { a: 1, b: 2 });
    assert.equal((await client.event("own")).data, '"x"');
    await client.event("empty");
  });

  scenario("a bad token gets 401, a refused room 403 and a malformed room 400, without a stream", async ({ node, sse }) => {
    const one = await node();
    const token = tokenFor("7");
    const cases = [
      [{ rooms: ["room:a"] }, [401]],
      [{ token: "not a token", rooms: ["room:a"] }, [401]],
      [{ token, rooms: ["closed:1"] }, [403]],
      [{ token, rooms: ["room:a", "user:8"] }, [403]],
      [{ token, rooms: ["unruled"] }, [403]],
      [{ token, rooms: ["room:a\nb"] }, [400, 403]],
    ];
    for (const [where, statuses] of cases) {
      const client = await sse(one, where).answered();
      assert.ok(statuses.includes(client.status), `${JSON.stringify(where)}: ${client.status}`);
      await until(() => client.ended, "the refusal to end");
      const { error } = JSON.parse(client.body);
      assert.match(error.code, /^[a-z_]+$/);
      assert.ok(error.message && !error.message.includes(token));
    }
    const answer = await command(one, "/sse", {});
    assert.equal(answer.status, 405);
  });

  scenario("Last-Event-ID replays missed events, or the client gets a gap event", async ({ node, sse }) => {
    const one = await node();
    const token = tokenFor("7");
    const first = await sse(one, { token, rooms: ["room:a"] }).answered();
    await published(one, { room: "room:a", event: "seen", data: 0 });
    const { id } = await first.event("seen");
    first.close();
    await published(one, { room: "room:a", event: "missed", data: 1 });
    const back = await sse(one, { token, rooms: ["room:a"], headers: { "last-event-id": id } }).answered();
    await published(one, { room: "room:a", event: "end", data: 2 });
    await back.event("end");
    const names = back.events.map(({ name }) => name);
    assert.ok(["missed,end", "gap,end"].includes(names.join()), `got ${names}`);
    const lost = await sse(one, { token, rooms: ["room:a"], headers: { "last-event-id": "poison" } }).answered();
    await lost.event("gap");
  });

  scenario("regular comments keep the stream open", async ({ node, sse }) => {
    const one = await node({ socketio: { ping_interval: "200ms", ping_timeout: "200ms" } });
    const client = await sse(one, { token: tokenFor("7"), rooms: ["room:a"] }).answered();
    await until(() => client.body.split("\n").filter((line) => line.startsWith(":")).length >= 4, "four comments");
    assert.ok(!client.ended, "no answer is expected");
  });

  scenario("an expired token and /disconnect end the stream", async ({ node, sse }) => {
    const one = await node({ auth: { leeway: "0s" } });
    const expiring = await sse(one, { token: tokenFor("7", { exp: Math.floor(Date.now() / 1000) + 8 }), rooms: ["room:a"] }).answered();
    assert.equal(expiring.status, 200);
    const dropped = await sse(one, { token: tokenFor("8"), rooms: ["room:a"] }).answered();
    assert.deepEqual((await command(one, "/disconnect", { user: "8" })).json(), { sessions: 1 });
    await until(() => dropped.ended, "the stream to end after /disconnect");
    await until(() => expiring.ended, "the stream to end when the token expires");
  });

  scenario("a request that the client drops while its connection rule waits for a hanging Redis leaves no connection and no session", async ({ redis, node, sse }) => {
    const store = await redis();
    const on = [{ event: "connection", emit: [{ room: "user:{user}", event: "came", args: [1], include_caller: true }] }];
    const one = await node({ redis: { url: store.url, timeout: "30s" }, on, recovery: { window: "0s" } });
    store.signal("SIGSTOP");
    const client = sse(one, { token: tokenFor("7"), rooms: ["room:a"] });
    await until(async () => (await one.connections("sse")) === 1, "the connection waiting for its rule");
    assert.equal(client.status, undefined, "no answer while the rule waits for Redis");
    client.close();
    await until(() => client.error, "the request dropped");
    store.signal("SIGCONT");
    await until(() => one.answers("/health"), "ready again");
    await until(async () => (await one.connections("sse")) === 0, "no connection left");
    await until(async () => (await one.metric("roomcast_sessions")) === 0, "no session left");
  });
});
