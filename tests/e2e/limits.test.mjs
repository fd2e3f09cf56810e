// What a review found: limits that a client could get around, and events or connections that were lost.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { BINARY, PING, TEXT, frame } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const event = (name, data, more) => ({ room: "room:a", event: name, data, ...more });
const closed = (node, reason) => node.metric(`roomcast_closes_total{reason="${reason}"}`);
const MEGABYTE = 1_000_000;

suite("what a review found: limits and connections", () => {
  const FLOOD = 50_000;
  const floods = { "empty binary frames": frame(BINARY), "pings": frame(PING, "x".repeat(100)), "invalid JSON": frame(TEXT, "{") };
  for (const [what, bytes] of Object.entries(floods)) {
    scenario(`/ws: ${FLOOD} ${what} by one that never reads: cut by the rate limit`, async ({ node, raw, ws }) => {
      const one = await node({ limits: { events_per_second: 50 } });
      const unharmed = await (await ws(one, { token: tokenFor("8") }).welcomed()).join("room:a");
      let expected = 0;
      for (const path of [`/ws?token=${token}`, "/ws"]) {
        const socket = raw(one);
        await socket.upgrade(path);
        assert.equal(socket.status, 101);
        socket.socket.pause();
        socket.write(Buffer.concat(Array(FLOOD).fill(bytes)));
        expected += 1;
        await until(async () => {
          const unsent = await one.metric("roomcast_outbox_bytes");
          assert.ok(unsent < MEGABYTE / 10, `${unsent} bytes wait for ${path}`);
          return (await closed(one, "rate_limit")) === expected;
        }, `${path} closed by its rate`);
        await until(async () => (await one.connections("ws")) === 1, `${path} gone, though it never reads`, 20_000);
      }
      await published(one, event("end", 1));
      await unharmed.event("end");
    });
  }

  scenario("SSE: one that does not read while 22 MB come is cut, the others get them all", async ({ node, raw, sse, ws }) => {
    const one = await node();
    const stream = await sse(one, { token: tokenFor("8"), rooms: ["room:a"] }).answered();
    const plain = await (await ws(one, { token: tokenFor("9") }).welcomed()).join("room:a");
    const slow = raw(one);
    slow.write(`GET /sse?room=room:a&token=${token} HTTP/1.1\r\nHost: x\r\n\r\n`);
    assert.match(await slow.head(), /^HTTP\/1\.1 200/);
    slow.socket.pause();
    const data = "x".repeat(MEGABYTE / 10);
    for (let sent = 1; sent <= 220; sent += 1) {
      await published(one, event("big", data));
      const received = () => [stream, plain].every((client) => client.eventsOf("big").length === sent);
      await until(received, () => `event ${sent}; the stream has ${stream.eventsOf("big").length}`);
    }
    await until(async () => (await closed(one, "slow_consumer")) === 1, "the slow one closed as a slow consumer");
    await until(async () => (await one.connections("sse")) === 1, "only the reading stream left", 20_000);
    await published(one, event("end", 1));
    await Promise.all([stream.event("end"), plain.event("end")]);
    assert.ok(!stream.ended && !plain.end);
  });

  scenario("SSE: dropped while its connection rule waits for a hanging Redis: nothing is left of it", async ({ redis, node, sse }) => {
    const store = await redis();
    const on = [{ event: "connection", emit: [{ room: "user:{user}", event: "came", args: [1], include_caller: true }] }];
    const one = await node({ redis: { url: store.url, timeout: "5s" }, on, recovery: { window: "0s" } });
    store.signal("SIGSTOP");
    const client = sse(one, { token, rooms: ["room:a"] });
    await until(async () => (await one.connections("sse")) === 1, "the connection waiting for its rule");
    assert.equal(client.status, undefined, "the rule waits for Redis");
    client.close();
    await until(() => client.error, "the request dropped");
    store.signal("SIGCONT");
    await until(() => one.answers("/health"), "ready again");
    await until(async () => (await one.connections("sse")) === 0, "no connection left");
    await until(async () => (await one.metric("roomcast_sessions")) === 0, "no session left");
  });

  scenario("polling: 20 emits of 4 KB in one batch are all acknowledged, with Redis", async ({ redis, node, io }) => {
    const store = await redis();
    const emit = [{ room: "user:{user}", event: "said", args: ["{0}"] }];
    const on = [{ event: "say", emit, ack: ["{0}"] }];
    const one = await node({ redis: { url: store.url }, limits: { events_per_second: 50 }, on });
    const client = io(one, { token, transports: ["polling"] });
    const data = (number) => `${number}${"x".repeat(4096)}`;
    // Not connected yet: the client keeps them and sends them together.
    assert.ok(!client.socket.connected);
    const answers = await Promise.all(Array.from({ length: 20 }, (_, number) => client.ask("say", data(number))));
    assert.deepEqual(answers.map(([answer]) => answer), Array.from({ length: 20 }, (_, number) => data(number)));
    assert.deepEqual([client.connects, client.disconnects], [1, []]);
    assert.equal(Number(await store.cli("XLEN", "roomcast:events")) >= 20, true);
  });

  scenario("/ws: let in as anonymous, a first auth message logs the client in", async ({ node, ws }) => {
    const one = await node({ auth: { anonymous: true } });
    const client = await ws(one).welcomed();
    assert.equal(client.messages[0].user ?? null, null);
    client.send({ type: "auth", token });
    await client.message(({ type, user }) => type === "welcome" && user === "7");
    await published(one, { room: "user:7", event: "own", data: 1 });
    await client.event("own");
    assert.equal(client.eventsOf("own").length, 1);
    await until(async () => (await one.metric("roomcast_sessions")) === 1, "one session, not two");
  });
});
