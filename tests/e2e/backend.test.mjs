// backend.url: roomcast calls the backend with signed webhooks.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import express from "express";
import { SECRET, startBackend } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { post } from "../harness/http.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const rooms = [
  { match: "user:{user}", join: "auto" },
  { match: "chat:<id>", join: "ask" },
];
const on = [
  { event: "open_chat", join: "chat:{0.id}", ack: [{ ok: true }], on_error: { event: "failed", args: ["{error}"] } },
  { event: "send", forward: true, ack_error: [{ success: false, error: "{error}" }] },
  { event: "bare", forward: true },
  { event: "typing", emit: [{ room: "user:{user}", event: "user_typing", args: ["{0}"], include_caller: true, volatile: true }], ack: ["relayed"] },
];
/** Bad answers of a backend, by the error code that the caller gets. */
const TROUBLE = {
  backend_timeout: {
    "never": () => {},
    "a byte now and then": (response) => {
      response.write("{");
      const drip = setInterval(() => response.write(" "), 50);
      response.on("close", () => clearInterval(drip));
    },
  },
  backend_unavailable: {
    "hung up": (response) => response.destroy(),
    "half an answer": (response) => (response.writeHead(200, { "content-length": "100" }), response.write("{"), response.socket.end()),
    "not HTTP": (response) => response.socket.end("SSH-2.0-OpenSSH_9.6\r\n\r\n"),
    "a header of 1 MB": (response) => response.socket.end(`HTTP/1.1 200 OK\r\nX: ${"x".repeat(1 << 20)}\r\n\r\n{}`),
  },
  backend_error: { 500: { status: 500, body: "oops" }, 404: { status: 404, body: "" }, 302: { status: 302, body: "" } },
  backend_bad_answer: {
    "HTML": { body: "<html>" },
    "1 MB": { body: `{"allow":true,"ack":["${"x".repeat(1 << 20)}"]}` },
    "without end": (response) => {
      const more = () => {
        while (!response.destroyed && response.write("x".repeat(1 << 16)));
      };
      response.on("drain", more);
      more();
    },
    "deep": { body: `${"[".repeat(100_000)}` },
    "not UTF-8": (response) => response.end(Buffer.from("7b22616c6c6f77223a747275652c22ff223a317d", "hex")),
  },
};

async function stage(s, more = {}, config = {}) {
  // From freePort, so that a test can start a backend on the same port again.
  const backend = await startBackend(await freePort());
  s.keep(backend);
  const node = await s.node({ rooms, on, ...backend.config(more), ...config });
  return { backend, node };
}

suite("backend", () => {
  scenario("join = \"ask\": the backend decides, on Socket.IO, /ws and SSE", async (s) => {
    const { backend, node } = await stage(s);
    backend.answer = ({ user, room }) => (user === "7" && room === "chat:1" ? { allow: true } : { allow: false, error: "not a member" });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("open_chat", { id: 1 }), [{ ok: true }]);
    const call = await backend.call("join");
    assert.deepEqual([call.room, call.user, call.namespace, call.session, call.signed], ["chat:1", "7", "/", client.socket.id, true]);
    assert.deepEqual([call.rooms, call.claims.sub], [["user:7"], "7"]);
    assert.ok(Math.abs(new Date(call.time) - Date.now()) < 60_000 && call.id.length > 10);
    assert.deepEqual(await client.ask("open_chat", { id: 1 }), [{ ok: true }]);
    assert.equal(backend.of("join").length, 1, "no call for a room that the session is in");
    assert.deepEqual(await client.ask("open_chat", { id: 2 }), [{ error: { code: "refused", message: "not a member" } }]);
    assert.deepEqual(await client.event("failed"), ["not a member"]);
    const plain = await s.ws(node, { token: tokenFor("7") }).welcomed();
    plain.send({ type: "join", room: "chat:1", id: 1 });
    await plain.message("joined");
    plain.send({ type: "join", room: "chat:3", id: 2 });
    const refused = await plain.message("error");
    assert.deepEqual([refused.code, refused.id], ["refused", 2]);
    const stream = await s.sse(node, { token: tokenFor("7"), rooms: ["chat:1"] }).answered();
    assert.equal((await node.get(`/sse?room=chat:9&token=${tokenFor("7")}`)).status, 403);
    await published(node, { room: "chat:1", event: "n", data: 1 });
    assert.deepEqual(await client.event("n"), [1]);
    await plain.event("n");
    await stream.event("n");
  });

  scenario("forward: the backend's answer acknowledges, replies, emits, joins and leaves, with numbers byte for byte", async (s) => {
    const { backend, node } = await stage(s);
    backend.answer = ({ event, args }) => event === "send" && {
      ack: [{ success: true, message: args[0] }],
      reply: [{ event: "sent", args: ["to you"] }],
      emit: [{ room: "chat:1", event: "new_message", args }],
      join: ["chat:1"],
      leave: ["user:7"],
    };
    const [one, other] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    assert.deepEqual((await other.ask("send", { text: "é", big: 1e21 }))[0].success, true);
    assert.deepEqual(await one.ask("send", { text: "hi", n: 1.5 }), [{ success: true, message: { text: "hi", n: 1.5 } }]);
    assert.deepEqual(await one.event("sent"), ["to you"]);
    assert.deepEqual(await one.event("new_message"), [{ text: "hi", n: 1.5 }], "the sender is in the room too");
    await until(() => other.argsOf("new_message").length === 2, "both messages");
    const call = await backend.call("event", 2);
    assert.deepEqual([call.event, call.args, call.user, call.signed], ["send", [{ text: "hi", n: 1.5 }], "7", true]);
    await published(node, { room: "user:7", event: "left", data: 1 });
    await published(node, { room: "chat:1", event: "end", data: 1 });
    await one.event("end");
    assert.equal(one.argsOf("left").length, 0);
    assert.equal(backend.connections <= 4, true, `connections are reused: ${backend.connections}`);
    await node.metricIs('roomcast_backend_requests_total{result="ok",type="event"}', 2);
    await node.metricIs('roomcast_events_total{source="backend"}', 2);
    const bytes = new Uint8Array([1, 2, 3]);
    await one.ask("send", Buffer.from(bytes));
    assert.deepEqual((await backend.call("event", 3)).args, [{ $binary: "AQID" }]);
  });

  for (const log of ["embedded", "Redis"]) {
    scenario(`the caller gets reply, emit and acknowledgement in this order (${log} log)`, async (s) => {
      const forward = { event: "in_order", forward: true, join: "own:{user}", reply: { event: "1 reply", args: [] },
        emit: [{ room: "own:{user}", event: "3 emit", args: [], include_caller: true }] };
      const redis = log === "Redis" ? { redis: { url: (await s.redis()).url } } : {};
      const { backend, node } = await stage(s, {}, { rooms: [{ match: "own:<id>", join: "allow" }], on: [forward], ...redis });
      backend.answer = () => ({ reply: [{ event: "2 reply", args: [] }], emit: [{ room: "own:7", event: "4 emit", args: [] }], ack: [] });
      const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
      for (let round = 0; round < 20; round += 1) {
        client.events.length = 0;
        await client.ask("in_order");
        assert.deepEqual(client.events.map(({ name }) => name), ["1 reply", "2 reply", "3 emit", "4 emit"]);
      }
    });
  }

  scenario("a bad answer, an error or a timeout of the backend is an error for the caller alone, in time, and pauses calls to it", async (s) => {
    // Longer than any answer takes on a machine that is busy with others.
    const { backend, node } = await stage(s, { timeout: "4s" });
    const [client, other] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    const fails = async (answer, code, text) => {
      backend.answer = () => answer;
      const [{ error }] = await client.ask("bare", 1);
      assert.equal(error.code, code, JSON.stringify(error));
      assert.match(error.message, text);
      assert.doesNotMatch(error.message, /127\.0\.0\.1/);
    };
    await fails({ error: "closed for today" }, "refused", /^closed for today$/);
    for (const body of ["", " "]) {
      backend.answer = () => ({ body });
      assert.deepEqual(await client.ask("bare", 1), [], "an empty answer does nothing");
    }
    for (const body of ["<html>", "[]", '{"ack":{}}', '{"emit":[{"event":"x"}]}', '{"reply":[{"event":"disconnect"}]}', '{"join":[""]}', `{"ack":["${"x".repeat(1 << 20)}"]}`]) {
      await fails({ body }, "backend_bad_answer", /cannot be used/);
    }
    await fails({ status: 500, body: "oops" }, "backend_error", /500/);
    await fails({ status: 302, body: "" }, "backend_error", /302/);
    await fails((response) => response.destroy(), "backend_unavailable", /not reachable/);
    await fails(() => {}, "backend_timeout", /4s/);
    backend.answer = ({ args }) => (args[0] === "bug" ? { status: 500, body: "" } : {});
    for (let n = 0; n < 10; n += 1) assert.equal((await client.ask("bare", "bug"))[0].error.code, "backend_error");
    assert.deepEqual(await other.ask("bare", 1), [], "errors of one client do not affect another");
    backend.answer = () => ({ status: 503, body: "" });
    // A call tries every second: what is asked in between makes none.
    await until(async () => {
      const asked = backend.calls.length;
      return (await client.ask("bare", 1))[0].error.code === "backend_unavailable" && backend.calls.length === asked;
    }, "calls are paused: an error without a call");
    await published(node, { rooms: ["user:7", "user:8"], event: "n", data: 1 });
    await Promise.all([client, other].map((one) => one.event("n")));
    backend.answer = () => ({ ack: ["works again"] });
    await until(async () => (await client.ask("bare", 1))[0] === "works again", "calls resume");
    assert.equal(client.disconnects.length, 0);
  });

  for (const [code, answers] of Object.entries(TROUBLE)) {
    scenario(`${code}: every kind of join and event gets the error in time, and other clients notice nothing`, async (s) => {
      const { backend, node } = await stage(s, { timeout: code === "backend_timeout" ? "2s" : "60s" });
      const [client, other] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
      const plain = await s.ws(node, { token: tokenFor("7") }).welcomed();
      for (const [name, answer] of Object.entries(answers)) {
        backend.answer = () => answer;
        // Each has its own deadline, which is shorter than a minute.
        const asked = Promise.all([client.ask("bare", 1), client.ask("open_chat", { id: 1 }), plain.ask({ type: "join", room: "chat:1" })]);
        assert.deepEqual(await other.ask("typing", name), ["relayed"]);
        const [[forwarded], [joined], refused] = await asked;
        assert.deepEqual([forwarded.error.code, joined.error.code, refused.code], [code, code, code], name);
        assert.equal((await node.get(`/sse?room=chat:9&token=${tokenFor("7")}`)).status, 503, "unavailable, not forbidden");
        backend.answer = () => ({});
        // Otherwise calls would be paused in the next round.
        await until(async () => (await client.ask("bare", 0)).length === 0, "works again");
      }
      assert.ok((await node.metric(`roomcast_backend_requests_total{result="${{ backend_unavailable: "unreachable", backend_error: "status" }[code] ?? code.slice(8)}",type="event"}`)) >= Object.keys(answers).length);
      await published(node, { room: "chat:1", event: "secret", data: 1 });
      await published(node, { rooms: ["user:7", "user:8"], event: "end", data: 1 });
      for (const { events } of [client, other]) assert.ok((await until(() => events.find(({ name }) => name === "end"), "the end")) && !events.some(({ name }) => name === "secret"));
      assert.deepEqual(other.argsOf("user_typing").flat(), Object.keys(answers));
      assert.equal(client.disconnects.length + other.disconnects.length, 0);
      assert.ok(backend.connections < 100);
    });
  }

  scenario("a backend that is down is an error at once, and it is called again when it is up", async (s) => {
    // An error that came only then would miss the deadline of `ask`.
    const { backend, node } = await stage(s, { timeout: "60s" });
    const port = new URL(backend.url).port;
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("bare", 1), []);
    backend.close();
    for (let n = 0; n < 10; n += 1) assert.equal((await client.ask("bare", 1))[0].error.code, "backend_unavailable");
    s.keep(await startBackend(port));
    await until(async () => (await client.ask("bare", 1)).length === 0, "calls resume");
  });

  scenario("an answer with invalid rooms or events is refused as a whole", async (s) => {
    const { backend, node } = await stage(s, {}, { limits: { rooms_per_session: 50 } });
    const [client, other] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    const many = (count, name) => Array.from({ length: count }, (_, n) => `${name}:${n}`);
    const good = { ack: ["done"], join: ["good"], emit: [{ room: "user:8", event: "leaked", args: [] }], reply: [{ event: "leaked", args: [] }] };
    const refused = [
      { join: [""] }, { join: ["x".repeat(201)] }, { join: ["a\u0000b"] }, { join: [7] }, { join: "good" }, { join: many(10_000, "r") }, { leave: many(101, "r") },
      { join: [other.socket.id] }, { leave: [client.socket.id] },
      { emit: [{ room: "x".repeat(201), event: "e", args: [] }] }, { emit: many(10_000, "r").map((room) => ({ room, event: "leaked", args: [] })) },
      { emit: [{ room: "user:8", event: "connect", args: [] }] }, { emit: [{ room: "", event: "e" }] }, { reply: [{ event: "", args: [] }] },
    ];
    for (const bad of refused) {
      backend.answer = () => ({ ...good, ...bad });
      assert.equal((await client.ask("bare", 1))[0].error?.code, "backend_bad_answer", JSON.stringify(bad).slice(0, 100));
    }
    backend.answer = () => ({ ...good, join: many(50, "r") });
    assert.equal((await client.ask("bare", 1))[0].error?.code, "too_many_rooms", "one room is its own");
    backend.answer = () => ({ ack: ["done"], join: [...many(49, "r"), "r:0", "user:7"] });
    assert.deepEqual(await client.ask("bare", 1), ["done"], "a room that the session is in counts once");
    backend.answer = () => ({ ack: ["done"], leave: many(49, "r"), join: [] });
    assert.deepEqual(await client.ask("bare", 1), ["done"]);
    backend.answer = () => ({ ack: ["done"], join: ["chat:*", "user:<id>"] });
    assert.deepEqual(await client.ask("bare", 1), ["done"]);
    await published(node, { rooms: ["chat:1", "user:8", "good", "r:1"], event: "elsewhere", data: 1 });
    await published(node, { room: "chat:*", event: "literal", data: 1 });
    assert.deepEqual(await client.event("literal"), [1]);
    await other.event("elsewhere");
    assert.deepEqual(client.events.map(({ name }) => name), ["literal"], "a room name is not a pattern");
    assert.deepEqual(other.events.map(({ name }) => name), ["elsewhere"]);
  });

  scenario("the caller disconnects before the backend answers: the emits of the answer still reach the others", async (s) => {
    const { backend, node } = await stage(s);
    let answer;
    backend.answer = () => (response) => (answer = response);
    const [client, other] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    client.socket.emit("send", "saved");
    await until(() => answer, "the call");
    client.close();
    await until(async () => (await node.connections("socketio")) === 1, "the caller disconnected");
    answer.end(JSON.stringify({ ack: [1], join: ["chat:1"], reply: [{ event: "sent", args: [] }], emit: [{ room: "user:8", event: "new_message", args: ["saved"] }] }));
    assert.deepEqual(await other.event("new_message"), ["saved"]);
  });

  scenario("a hanging backend, with more calls than may run at once, does not slow down events that need no backend", async (s) => {
    const { backend, node } = await stage(s, { timeout: "15s" });
    const held = [];
    backend.answer = ({ args }) => (args[0] === "hold" ? (response) => held.push(response) : {});
    const clients = await Promise.all(Array.from({ length: 80 }, (_, n) => s.io(node, { token: tokenFor(`${n}`), ...WEBSOCKET }).connected()));
    const typist = await s.io(node, { token: tokenFor("typist"), ...WEBSOCKET }).connected();
    const times = async () => {
      const all = [];
      for (let n = 0; n < 50; n += 1) {
        const begun = performance.now();
        await typist.ask("typing", n);
        all.push(performance.now() - begun);
      }
      return all.sort((a, b) => a - b)[25];
    };
    await times();
    const before = await times();
    let answered = 0;
    const waiting = clients.map((client) => client.ask("bare", "hold").finally(() => (answered += 1)));
    await until(() => held.length === 64, "64 calls held, the others queued");
    const during = await times();
    assert.deepEqual([held.length, answered], [64, 0], "fifty events were answered while all these calls waited");
    const answers = await Promise.all(waiting);
    assert.ok(answers.every(([{ error }]) => error.code === "backend_timeout"), "the queued calls too");
    assert.ok(during < Math.max(before * 5, 500), `${before.toFixed(1)} ms before, ${during.toFixed(1)} ms during`);
    assert.deepEqual(typist.argsOf("user_typing").length, 150);
  });

  scenario("the signature check of docs/backend.md accepts what roomcast signed, and nothing else", async (s) => {
    const text = fs.readFileSync(new URL("../../docs/backend.md", import.meta.url), "utf8");
    const [, snippet] = /\n```js\n(app\.post\(.*?)\n```/s.exec(text);
    const app = express();
    const saved = [];
    const save = ({ args }) => (saved.push(args), { id: saved.length });
    new Function("app", "express", "crypto", "SECRET", "isMember", "save", snippet)(app, express, crypto, SECRET, (user, room) => user === "7" && room === "chat:1", save);
    const server = s.keep(http.createServer(app));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${server.address().port}/roomcast`;
    const backend = { url, secret: SECRET, notify: [] };
    const rule = { event: "send_message", forward: true };
    const node = await s.node({ rooms, on: [...on, rule], backend });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("open_chat", { id: 1 }), [{ ok: true }]);
    assert.equal((await client.ask("open_chat", { id: 2 }))[0].error.code, "refused");
    assert.deepEqual(await client.ask("send_message", "é"), [{ success: true, message: { id: 1 } }]);
    const impostor = await s.node({ rooms, on: [rule], backend: { ...backend, secret: "another secret" } });
    const fooled = await s.io(impostor, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.equal((await fooled.ask("send_message", "forged"))[0].error.code, "backend_error");

    const body = JSON.stringify({ type: "event", event: "send_message", args: ["forged"], user: "7" });
    const now = Math.floor(Date.now() / 1000);
    const sign = (time, of = body, secret = SECRET) => `t=${time},v1=${crypto.createHmac("sha256", secret).update(`${time}.${of}`).digest("hex")}`;
    const forged = [undefined, "", "t=1,v1=", `t=${now},v1=${"0".repeat(64)}`, sign(now, body, "another"), sign(now, `${body} `), sign(now - 400), sign(now + 400), `t=NaN,v1=${"0".repeat(64)}`, sign(now).replace(`t=${now}`, `t=${now + 1}`)];
    for (const signature of forged) {
      const headers = { "content-type": "application/json", ...(signature !== undefined && { "x-roomcast-signature": signature }) };
      assert.equal((await post(url, body, headers)).status, 401, signature);
    }
    assert.deepEqual(saved, [["é"]]);
    assert.equal((await post(url, body, { "content-type": "application/json", "x-roomcast-signature": sign(now) })).status, 200);
  });

  scenario("a client that waits for the backend does not delay other clients", async (s) => {
    const { backend, node } = await stage(s, { timeout: "60s" });
    const held = [];
    backend.answer = ({ args }) => (args[0] === "hold" ? (response) => held.push(response) : { ack: ["at once"] });
    const clients = await Promise.all(Array.from({ length: 20 }, (_, n) => s.io(node, { token: tokenFor(`${n}`), ...WEBSOCKET }).connected()));
    const waiting = clients.slice(0, 10).map((client) => client.ask("bare", "hold"));
    await until(() => held.length === 10, "ten calls held");
    for (const client of clients.slice(10)) assert.deepEqual(await client.ask("bare", "go"), ["at once"]);
    await published(node, { rooms: clients.map((_, n) => `user:${n}`), event: "n", data: 1 });
    await Promise.all(clients.map((client) => client.event("n")));
    for (const response of held) response.end('{"ack":["late"]}');
    assert.deepEqual(await Promise.all(waiting), Array(10).fill(["late"]));
  });

  scenario("notify: connect and disconnect arrive in order, are retried until answered, and delay no client", async (s) => {
    const { backend, node } = await stage(s, { notify: ["connect", "disconnect"] });
    let down = true;
    backend.answer = () => (down ? { status: 503, body: "" } : {});
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    const { id } = client.socket;
    client.socket.disconnect();
    await backend.call("connect", 2);
    down = false;
    const over = await backend.call("disconnect");
    const connects = backend.of("connect");
    assert.equal(new Set(connects.map((call) => call.id)).size, 1, "a retry has the same id");
    assert.deepEqual([over.session, over.user, over.reason, over.signed], [id, "7", "client close", true]);
    assert.ok(backend.calls.indexOf(over) > backend.calls.indexOf(connects.at(-1)));
  });

  scenario("a node that stops sends the notices of all its disconnections first", async (s) => {
    const { backend, node } = await stage(s, { notify: ["disconnect"] }, { shutdown: { timeout: "15s" } });
    backend.answer = () => (response) => setTimeout(() => response.end(), 20);
    const clients = await Promise.all(Array.from({ length: 30 }, (_, n) => s.io(node, { token: tokenFor(`${n}`), ...WEBSOCKET, reconnection: false }).connected()));
    await node.stop();
    assert.equal(new Set(backend.of("disconnect").map(({ user }) => user)).size, clients.length);
    const { node: other } = await stage(s, { notify: ["disconnect"], url: "http://127.0.0.1:1/" }, { shutdown: { timeout: "20s" } });
    await s.io(other, { token: tokenFor("7"), ...WEBSOCKET, reconnection: false }).connected();
    await other.stop();
    assert.match(other.output, /did not take all notices before the stop.*unsent=1/);
  });

  scenario("forward works for the connection and disconnect events", async (s) => {
    const events = [{ event: "connection", forward: true }, { event: "disconnect", forward: true }];
    const { backend, node } = await stage(s, {}, { on: events });
    backend.answer = ({ event, args }) => (event === "connection"
      ? { join: ["lobby"], reply: [{ event: "hello", args: [] }] }
      : { emit: [{ room: "lobby", event: "gone", args }] });
    const [one, other] = await Promise.all(["7", "8"].map((user) => s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    await Promise.all([one, other].map((client) => client.event("hello")));
    one.socket.disconnect();
    assert.deepEqual(await other.event("gone"), ["client close"]);
    assert.deepEqual((await backend.call("event", 3)).rooms.toSorted(), ["lobby", "user:7"]);
  });
});
