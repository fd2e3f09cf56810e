// Limits: what a client may send, join and leave unread, and what happens beyond it.
import assert from "node:assert/strict";
import net from "node:net";
import { bystander } from "../harness/bystander.mjs";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { BINARY, PING, TEXT, frame } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn, rawSession, untilEnd } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const event = (name, data, more) => ({ room: "room:a", event: name, data, ...more });
const closed = (node, reason) => node.metric(`roomcast_closes_total{reason="${reason}"}`);
const MEGABYTE = 1_000_000;
const FLOOD = 50_000;
const FLOODS = { "empty binary frames": frame(BINARY), "pings": frame(PING, "x".repeat(100)), "messages of invalid JSON": frame(TEXT, "{") };

suite("limits", () => {
  scenario("connections that send nothing: above the bound the oldest are closed, and a newcomer is answered meanwhile", async (s) => {
    // Nothing else closes a connection that sends nothing.
    const one = await s.node({ limits: { connections: 1 }, http: { head_timeout: "5m" }, socketio: { connect_timeout: "5m" } });
    const sockets = [];
    const open = () => new Promise((resolve) => {
      const socket = net.connect(one.port, "127.0.0.1");
      socket.on("error", () => {});
      sockets.push(socket);
      socket.once("connect", () => resolve(socket));
    });
    const MANY = 1_100; // 2 × `limits.connections` + 1,024 are allowed.
    let closedEarly = 0;
    for (let n = 0; n < MANY; n += 1) (await open()).once("close", () => (closedEarly += 1));
    await until(() => closedEarly >= MANY - 1_026, "connections that are closed at once");
    assert.ok(closedEarly < MANY / 2, `${closedEarly} of ${MANY}`);
    assert.equal((await one.get("/health/live")).status, 200);
    assert.ok((await one.metric('roomcast_refusals_total{reason="unauthenticated"}')) >= MANY - 1_026);
    assert.ok(!sockets.at(-1).closed && sockets[0].closed, "the oldest is closed, not the newest");
    for (const socket of sockets) socket.destroy();
  });

  scenario("rooms_per_session and the length of room names are enforced, and rooms that were left are not kept", async (s) => {
    const one = await s.node({ limits: { rooms_per_session: 10, events_per_second: 100_000 } });
    const client = await s.io(one, { token, transports: ["websocket"] }).connected();
    let refused;
    for (let n = 0; n < 12; n += 1) {
      const [answer] = await client.ask("join", `${n}`);
      if (answer.error) refused ??= n;
    }
    assert.ok(refused >= 8 && refused <= 10, `refused from room ${refused} on`);
    assert.ok((await client.ask("join", "x".repeat(200)))[0].error);
    const before = await one.metric("roomcast_rooms");
    for (let n = 0; n < 500; n += 1) {
      await client.ask("leave", n === 0 ? "0" : `churn${n - 1}`);
      assert.deepEqual(await client.ask("join", `churn${n}`), [{ ok: true }]);
    }
    await one.metricIs("roomcast_rooms", before);
    const joined = await command(one, "/join", { user: "7", rooms: Array.from({ length: 20 }, (_, n) => `team:${n}`) });
    assert.ok([200, 400].includes(joined.status));
    client.close();
    await one.metricIs("roomcast_rooms", 0);
  });

  for (const [what, bytes] of Object.entries(FLOODS)) {
    scenario(`/ws: ${FLOOD} ${what} from a client that never reads close its connection with rate_limit`, async ({ node, raw, ws }) => {
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

  scenario("a client that sends far more events than events_per_second and does not stop is closed, and the other clients notice nothing", async (s) => {
    const one = await s.node({ limits: { events_per_second: 50 } });
    const unharmed = await bystander(s, one);
    const plain = await s.ws(one, { token }).welcomed();
    // A burst, and what the rate allows in the time that this takes.
    const most = (begun) => 480 + (50 * (Date.now() - begun)) / 1000;
    let begun = Date.now();
    for (let n = 0; n < 10_000; n += 1) plain.send({ type: "event", event: "echo", data: n, id: n });
    assert.equal((await plain.ended()).code, 4429);
    const done = plain.messages.filter(({ type, data }) => type === "ack" && !data?.error);
    assert.ok(done.length <= most(begun), `${done.length} events were carried out`);
    const client = await s.io(one, { token, transports: ["websocket"], reconnection: false }).connected();
    let answers = 0;
    begun = Date.now();
    for (let n = 0; n < 10_000; n += 1) client.socket.emit("echo", n, (answer) => (answers += answer?.error ? 0 : 1));
    await client.disconnected();
    assert.ok(answers <= most(begun), `${answers} events were carried out`);
    assert.ok((await one.metric('roomcast_closes_total{reason="rate_limit"}')) >= 2);
    await unharmed();
  });

  const CHATTY = { events_per_second: 10_000, bytes_per_second: "1GB", outbox_bytes: "100kB" };
  const PIECE = "x".repeat(9_000);

  scenario("a client that sends faster than it takes its answers is read as it takes them, and gets each", async ({ node, io, ws }) => {
    const one = await node({ limits: CHATTY });
    const client = await io(one, { token, transports: ["websocket"] }).connected();
    const plain = await ws(one, { token }).welcomed();
    let answered = 0;
    for (let id = 0; id < 1_000; id += 1) {
      client.socket.emit("echo", PIECE, () => (answered += 1));
      plain.send({ type: "event", event: "echo", data: PIECE, id });
    }
    const acked = () => plain.messages.filter(({ type }) => type === "ack").length;
    await until(() => answered === 1_000 && acked() === 1_000, () => `${answered} and ${acked()} answers; ${JSON.stringify(plain.end)}`);
    assert.deepEqual([client.argsOf("echoed").length, plain.eventsOf("echoed").length], [1_000, 1_000]);
    assert.deepEqual([client.disconnects, plain.end], [[], undefined]);
  });

  scenario("a client that sends and never takes its answers is not read, and closed as slow_consumer after socketio.ping_timeout", async (s) => {
    const one = await s.node({ limits: CHATTY, socketio: { ping_timeout: "3s" } });
    const unharmed = await bystander(s, one);
    const slow = s.raw(one);
    await slow.upgrade(`/ws?token=${token}`);
    slow.socket.pause();
    const message = frame(TEXT, JSON.stringify({ type: "event", event: "echo", data: PIECE }));
    slow.write(Buffer.concat(Array(5_000).fill(message)));
    await until(async () => {
      // Half of the limit, and the answers to what one turn reads: up to four times 64 KiB.
      const unsent = await one.metric("roomcast_outbox_bytes");
      assert.ok(unsent < MEGABYTE, `${unsent} bytes wait`);
      return (await closed(one, "slow_consumer")) === 1;
    }, "the one that never reads closed");
    await unharmed();
  });

  scenario("/ws: a client that does not read is closed as slow_consumer, and the others receive every event", async (s) => {
    const one = await s.node({ limits: { outbox_bytes: "200KB" } });
    const fast = await (await s.ws(one, { token: tokenFor("8") }).welcomed()).join("room:a");
    const slow = await (await s.ws(one, { token }).welcomed()).join("room:a");
    slow.socket.pause();
    const data = "x".repeat(100_000);
    let sent = 0;
    await until(async () => {
      await published(one, { room: "room:a", event: "big", data: `${sent}${data}` });
      sent += 1;
      await until(() => fast.eventsOf("big").length === sent, "the fast one has it");
      return (await closed(one, "slow_consumer")) === 1;
    }, "the slow one closed");
    slow.socket.resume();
    assert.ok([4408, 1006].includes((await slow.ended()).code));
    assert.equal(fast.end, undefined);
  });

  scenario("/sse: a client that does not read is closed as slow_consumer, and the others receive all 22 MB", async ({ node, raw, sse, ws }) => {
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
    await until(async () => (await closed(one, "slow_consumer")) === 1, "the slow client closed as slow_consumer");
    await until(async () => (await one.connections("sse")) === 1, "only the stream that reads", 20_000);
    await published(one, event("end", 1));
    await Promise.all([stream.event("end"), plain.event("end")]);
    assert.ok(!stream.ended && !plain.end);
  });

  scenario("entries with thousands of rooms, added to the stream by a backend, do not block the node", async (s) => {
    const store = await s.redis();
    const [node] = await nodesOn(s, store, 1);
    await store.cli("ACL", "SETUSER", "backend", "on", ">secret", "resetkeys", "%W~roomcast:events", "resetchannels", "-@all", "+ping", "+xadd");
    const [one] = await Promise.all(Array.from({ length: 20 }, () => rawSession(s, node)));
    const rooms = (from) => Array.from({ length: 6_000 }, (_, n) => `r${from + n}`);
    let slowest = 0;
    const requests = s.repeat(async () => {
      const begun = Date.now();
      await node.get("/health/live");
      slowest = Math.max(slowest, Date.now() - begun);
    });
    // redis-cli limits the size of one argument, hence ten entries.
    for (let n = 0; n < 10; n += 1) {
      const order = { id: "A".repeat(20), from: "00000000", for: { user: "7" }, namespace: "/", do: { join: rooms(n * 6_000) } };
      await store.cli("--user", "backend", "--pass", "secret", "--no-auth-warning", "XADD", "roomcast:events", "*", "order", JSON.stringify(order));
    }
    // Once this event has arrived, the entries before it were carried out or refused.
    await untilEnd(one, node);
    await requests.stop();
    const held = await node.metric("roomcast_rooms");
    assert.ok(held < 10_000, `${held} rooms created; slowest answer ${slowest} ms`);
  });
});
