// The stock socket.io-client 4 on every transport.
import assert from "node:assert/strict";
import parser from "socket.io-msgpack-parser";
import { until } from "../harness/deadline.mjs";
import { streamOf } from "../harness/lines.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const TRANSPORTS = { "WebSocket only": ["websocket"], "polling only": ["polling"], "polling with upgrade": ["polling", "websocket"] };

suite("Socket.IO", () => {
  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    scenario(`${name}: a client connects, joins, receives events, gets acknowledgements and leaves`, async ({ node, io }) => {
      const one = await node();
      const client = await io(one, { token: tokenFor("7"), transports }).connected();
      await client.join("room:a");
      await published(one, { room: "room:a", event: "news", data: { id: 1 } });
      await published(one, { room: "user:7", event: "own", args: ["a", 2, null, [true]] });
      assert.deepEqual(await client.event("news"), [{ id: 1 }]);
      assert.deepEqual(await client.event("own"), ["a", 2, null, [true]]);
      assert.deepEqual(await client.ask("echo", 1, { two: "2" }, null), [1, { two: "2" }, null]);
      assert.deepEqual(await client.event("echoed"), [1, { two: "2" }, null]);
      assert.deepEqual(await client.ask("leave", "a"), [{ ok: true }]);
      await published(one, { room: "room:a", event: "after leaving", data: 1 });
      await published(one, { room: "user:7", event: "end", data: 1 });
      await client.event("end");
      assert.deepEqual(client.argsOf("after leaving"), []);
    });
  }

  for (const [name, transports] of Object.entries(TRANSPORTS)) {
    scenario(`socket.io-msgpack-parser, ${name}: refused in its own encoding, in each namespace, without reconnection`, async ({ node, io }) => {
      const one = await node({ socketio: { namespaces: ["/", "/chat"] } });
      const client = io(one, { token: tokenFor("7"), parser, transports });
      const chat = io(one, { token: tokenFor("7"), parser, transports, namespace: "/chat" });
      for (const refused of [client, chat]) {
        const error = await refused.refused();
        assert.match(error.message, /socket\.io-msgpack-parser is not supported: leave out the client's `parser` option/);
        assert.deepEqual(error.data, { code: "unsupported_parser" });
        await until(() => !refused.socket.active, "no reconnection");
      }
      await until(async () => (await one.connections("socketio")) === 0, "both disconnected");
      assert.equal(client.errors.length + chat.errors.length, 2);
      await one.metricIs('roomcast_handshakes_total{result="unsupported_parser"}', 2);
      await one.says("msgpack-parser is not supported");
      await io(one, { token: tokenFor("7"), transports }).connected();
    });
  }

  scenario("an unexpected binary message that is not a CONNECT of socket.io-msgpack-parser closes the connection", async ({ node, io }) => {
    const one = await node();
    const bomb = Buffer.concat([Buffer.from([0x83]), Buffer.alloc(1 << 19, 0x91)]);
    const event = Buffer.from("82a47479706502a36e7370a12f", "hex");
    const connect = Buffer.from("82a47479706500a36e7370a12f", "hex");
    for (const bytes of [Buffer.from([0]), Buffer.from([0x83]), bomb, event]) {
      const client = io(one, { token: tokenFor("7"), transports: ["websocket"], reconnection: false });
      let closed;
      client.socket.io.on("open", () => client.socket.io.engine.write(bytes));
      client.socket.io.on("close", (reason) => (closed = reason));
      await until(() => closed, "a close");
    }
    const joined = await io(one, { token: tokenFor("7"), transports: ["websocket"], reconnection: false }).connected();
    joined.socket.io.engine.write(connect);
    assert.equal(await joined.disconnected(), "transport close");
    assert.equal(await one.metric('roomcast_handshakes_total{result="unsupported_parser"}'), 0);
  });

  scenario("an upgrade loses no event and keeps the order", async ({ node, io }) => {
    const one = await node();
    const clients = Array.from({ length: 8 }, () => io(one, { token: tokenFor("7") }));
    await Promise.all(clients.map((client) => client.connected()));
    let sent = 0;
    const upgraded = () => clients.every((client) => client.transport() === "websocket");
    await until(async () => {
      await published(one, { room: "user:7", event: "tick", data: sent });
      sent += 1;
      return upgraded() && sent >= 100;
    }, () => `all upgraded: ${clients.map((client) => client.transport())}`);
    await published(one, { room: "user:7", event: "end", data: null });
    for (const client of clients) {
      await client.event("end");
      assert.deepEqual(client.argsOf("tick").map(([number]) => number), Array.from({ length: sent }, (_, n) => n));
    }
  });

  scenario("events that a client sends during its upgrade arrive once and in order", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("7") }).connected();
    const answers = [];
    for (let n = 0; n < 200; n += 1) client.socket.emit("echo", n, (back) => answers.push(back));
    await until(() => answers.length === 200 && client.transport() === "websocket", "200 answers and the upgrade");
    assert.deepEqual(answers, Array.from({ length: 200 }, (_, n) => n));
    assert.deepEqual(client.argsOf("echoed").map(([number]) => number), answers);
  });

  scenario("namespaces have their own rooms, an unknown namespace is refused, and one connection can use several", async ({ node, io, keep }) => {
    const one = await node({
      socketio: { namespaces: ["/", "/chat"] },
      on: [
        { namespace: "/", event: "join", join: "room:{0}", ack: [{ ok: true }] },
        { namespace: "/chat", event: "join", join: "room:{0}", ack: [{ ok: true }] },
      ],
    });
    const main = await io(one, { token: tokenFor("7") }).connected();
    const chat = await io(one, { token: tokenFor("7"), namespace: "/chat" }).connected();
    await main.join("room:a");
    await chat.join("room:a");
    await published(one, { room: "room:a", event: "in main", data: 1 });
    await published(one, { room: "room:a", event: "in chat", data: 2, namespace: "/chat" });
    await published(one, { rooms: ["room:a", "user:7"], event: "end", data: 0 });
    await published(one, { rooms: ["room:a"], event: "end", data: 0, namespace: "/chat" });
    await Promise.all([main.event("end"), chat.event("end")]);
    assert.deepEqual([main.argsOf("in main"), main.argsOf("in chat")], [[[1]], []]);
    assert.deepEqual([chat.argsOf("in main"), chat.argsOf("in chat")], [[], [[2]]]);

    const unknown = io(one, { token: tokenFor("7"), namespace: "/nope" });
    assert.equal((await unknown.refused()).message, "Invalid namespace");
    assert.equal(unknown.socket.active, false, "no automatic reconnection after a refusal");

    const shared = main.socket.io.socket("/chat", { auth: { token: tokenFor("7") } });
    keep({ close: () => shared.disconnect() });
    await until(() => shared.connected, "the second namespace of one connection");
    assert.notEqual(shared.id, main.socket.id);
  });

  scenario("a refused token causes connect_error with a message and data, and no reconnection", async ({ node, io }) => {
    const one = await node();
    for (const [name, transports] of Object.entries(TRANSPORTS)) {
      const client = io(one, { token: "not a token", transports });
      const error = await client.refused();
      assert.ok(error.message.length > 5, name);
      assert.match(error.data?.code ?? "", /^[a-z_]+$/, `${name}: data of the error: ${JSON.stringify(error.data)}`);
      assert.equal(client.socket.active, false, name);
    }
  });

  scenario("an event without a rule is acknowledged with an error", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("7") }).connected();
    const [{ error }, ...rest] = await client.ask("no such event", 1);
    assert.deepEqual(rest, []);
    assert.deepEqual(Object.keys(error).sort(), ["code", "message"]);
    assert.match(error.code, /^[a-z_]+$/);
    assert.match(error.message, /no such event/);
    const [refused] = await client.ask("sneak", 1);
    assert.match(refused.error.message, /closed:1/);
    assert.equal(client.socket.connected, true, "still connected after a refused event");
  });

  scenario("binary arguments arrive in both directions", async ({ node, io }) => {
    const one = await node();
    for (const transports of Object.values(TRANSPORTS)) {
      const client = await io(one, { token: tokenFor("7"), transports }).connected();
      const bytes = Buffer.from([0, 1, 2, 253, 254, 255]);
      const other = Buffer.from("b");
      const [back, deep] = await client.ask("echo", bytes, { deep: [other, "text"] });
      assert.deepEqual(Buffer.from(back), bytes);
      assert.deepEqual([Buffer.from(deep.deep[0]), deep.deep[1]], [other, "text"]);
      const base64 = bytes.toString("base64");
      await published(one, { room: "user:7", event: "file", args: [{ $binary: base64 }, { a: [{ $binary: "" }] }, "x"] });
      const [first, second, text] = await client.event("file");
      assert.deepEqual(Buffer.from(first), bytes);
      assert.equal(Buffer.from(second.a[0]).length, 0);
      assert.equal(text, "x");
      client.close();
    }
  });

  scenario("/disconnect causes `io server disconnect` and no reconnection", async ({ node, io }) => {
    const one = await node();
    const transports = Object.entries(TRANSPORTS);
    const clients = transports.map(([name, list]) => Object.assign(io(one, { token: tokenFor("7"), transports: list }), { name }));
    await Promise.all(clients.map((client) => client.connected()));
    const answer = await command(one, "/disconnect", { user: "7" });
    assert.deepEqual([answer.status, answer.json()], [200, { sessions: 3 }]);
    for (const client of clients) {
      assert.equal(await client.disconnected(), "io server disconnect", client.name);
      assert.equal(client.socket.active, false);
      assert.equal(client.connects, 1);
    }
  });

  scenario("the token is accepted in auth.token, the Authorization header and the query", async ({ node, io }) => {
    const one = await node();
    for (const transports of Object.values(TRANSPORTS)) {
      const token = tokenFor("7");
      const places = [{ token }, { extraHeaders: { Authorization: `Bearer ${token}` } }, { query: { token } }];
      for (const place of places) {
        const client = await io(one, { ...place, transports }).connected();
        await published(one, { room: "user:7", event: "hello", data: 1 });
        await client.event("hello");
        client.close();
      }
    }
    const none = io(one);
    await none.refused();
    assert.equal(none.socket.connected, false);
  });

  scenario("a client that loses its connection reconnects by itself", async ({ node, proxy, io }) => {
    const one = await node();
    const balancer = await proxy(one);
    const client = await io(balancer, { token: tokenFor("7"), transports: ["websocket"] }).connected();
    balancer.cut();
    await client.disconnected();
    await until(() => client.connects === 2, "the second connect");
    await published(one, { room: "user:7", event: "again", data: 1 });
    assert.deepEqual(await client.event("again"), [1]);
  });

  scenario("volatile events of client and server arrive on a writable connection", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("7"), transports: ["websocket"] }).connected();
    assert.equal(await published(one, { room: "user:7", event: "v", data: "text", volatile: true }), null);
    assert.deepEqual(await client.event("v"), ["text"]);
    client.socket.volatile.emit("echo", "quick");
    assert.deepEqual(await client.event("echoed"), ["quick"]);
  });

  scenario("polling: 20 emits of 4 KB in one payload are all acknowledged, with Redis as the log", async ({ redis, node, io }) => {
    const store = await redis();
    const emit = [{ room: "user:{user}", event: "said", args: ["{0}"] }];
    const on = [{ event: "say", emit, ack: ["{0}"] }];
    const one = await node({ redis: { url: store.url }, limits: { events_per_second: 50 }, on });
    const client = io(one, { token: tokenFor("7"), transports: ["polling"] });
    const data = (number) => `${number}${"x".repeat(4096)}`;
    // The client buffers them until it is connected and sends them in one payload.
    assert.ok(!client.socket.connected);
    const answers = await Promise.all(Array.from({ length: 20 }, (_, number) => client.ask("say", data(number))));
    assert.deepEqual(answers.map(([answer]) => answer), Array.from({ length: 20 }, (_, number) => data(number)));
    assert.deepEqual([client.connects, client.disconnects], [1, []]);
    assert.ok(Number(await store.cli("XLEN", streamOf("user:7"))) >= 20);
  });
});
