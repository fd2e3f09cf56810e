// The backend is asked and told by signed webhooks.
import assert from "node:assert/strict";
import { startBackend } from "./harness/backend.mjs";
import { until } from "./harness/deadline.mjs";
import { published } from "./harness/publish.mjs";
import { scenario, suite } from "./harness/scenario.mjs";
import { tokenFor } from "./harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const rooms = [
  { match: "user:{user}", join: "auto" },
  { match: "chat:<id>", join: "ask" },
];
const on = [
  { event: "open_chat", join: "chat:{0.id}", ack: [{ ok: true }], on_error: { event: "failed", args: ["{error}"] } },
  { event: "send", forward: true, ack_error: [{ success: false, error: "{error}" }] },
  { event: "bare", forward: true },
];

async function stage(s, more = {}, config = {}) {
  const backend = await startBackend();
  s.keep(backend);
  const node = await s.node({ rooms, on, ...backend.config(more), ...config });
  return { backend, node };
}

suite("backend", () => {
  scenario("join = ask: the backend decides, on Socket.IO, /ws and SSE", async (s) => {
    const { backend, node } = await stage(s);
    backend.answer = ({ user, room }) => (user === "7" && room === "chat:1" ? { allow: true } : { allow: false, error: "not a member" });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("open_chat", { id: 1 }), [{ ok: true }]);
    const call = await backend.call("join");
    assert.deepEqual([call.room, call.user, call.namespace, call.session, call.signed], ["chat:1", "7", "/", client.socket.id, true]);
    assert.deepEqual([call.rooms, call.claims.sub], [["user:7"], "7"]);
    assert.ok(Math.abs(new Date(call.time) - Date.now()) < 60_000 && call.id.length > 10);
    assert.deepEqual(await client.ask("open_chat", { id: 1 }), [{ ok: true }]);
    assert.equal(backend.of("join").length, 1, "who is in already is not asked about");
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

  scenario("forward: acknowledgement, reply, emit, join and leave, as the backend says, numbers byte for byte", async (s) => {
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
    assert.equal(backend.connections <= 4, true, `connections are kept: ${backend.connections}`);
    assert.ok((await node.metric('roomcast_backend_requests_total{result="ok",type="event"}')) === 2);
    assert.ok((await node.metric('roomcast_events_total{source="backend"}')) === 2);
    const bytes = new Uint8Array([1, 2, 3]);
    await one.ask("send", Buffer.from(bytes));
    assert.deepEqual((await backend.call("event", 3)).args, [{ $binary: "AQID" }]);
  });

  scenario("a backend that is slow, down, answers garbage, errors or too much: the caller is told in time, nothing else happens", async (s) => {
    const { backend, node } = await stage(s, { timeout: "400ms" });
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
      assert.deepEqual(await client.ask("bare", 1), [], "nothing is asked for");
    }
    for (const body of ["<html>", "[]", '{"ack":{}}', '{"emit":[{"event":"x"}]}', '{"reply":[{"event":"disconnect"}]}', '{"join":[""]}', `{"ack":["${"x".repeat(1 << 20)}"]}`]) {
      await fails({ body }, "backend_bad_answer", /cannot be used/);
    }
    await fails({ status: 500, body: "oops" }, "backend_error", /500/);
    await fails({ status: 302, body: "" }, "backend_error", /302/);
    await fails((response) => response.destroy(), "backend_unavailable", /not reachable/);
    const begun = Date.now();
    await fails(() => {}, "backend_timeout", /400ms/);
    assert.ok(Date.now() - begun < 3000);
    backend.answer = () => ({ status: 500, body: "" });
    await until(async () => (await client.ask("bare", 1))[0].error.code === "backend_unavailable", "it is left alone");
    const asked = backend.calls.length;
    assert.deepEqual((await client.ask("bare", 1))[0].error.code, "backend_unavailable");
    assert.equal(backend.calls.length, asked, "nobody asks it");
    await published(node, { rooms: ["user:7", "user:8"], event: "n", data: 1 });
    await Promise.all([client, other].map((one) => one.event("n")));
    backend.answer = () => ({ ack: ["well again"] });
    await until(async () => (await client.ask("bare", 1))[0] === "well again", "it is asked again");
    assert.equal(client.disconnects.length, 0);
  });

  scenario("who waits for the backend holds up nobody else", async (s) => {
    const { backend, node } = await stage(s);
    const held = [];
    backend.answer = ({ args }) => (args[0] === "hold" ? (response) => held.push(response) : { ack: ["at once"] });
    const clients = await Promise.all(Array.from({ length: 20 }, (_, n) => s.io(node, { token: tokenFor(`${n}`), ...WEBSOCKET }).connected()));
    const waiting = clients.slice(0, 10).map((client) => client.ask("bare", "hold"));
    await until(() => held.length === 10, "ten are held");
    for (const client of clients.slice(10)) assert.deepEqual(await client.ask("bare", "go"), ["at once"]);
    await published(node, { rooms: clients.map((_, n) => `user:${n}`), event: "n", data: 1 });
    await Promise.all(clients.map((client) => client.event("n")));
    for (const response of held) response.end('{"ack":["late"]}');
    assert.deepEqual(await Promise.all(waiting), Array(10).fill(["late"]));
  });

  scenario("notify: connect and disconnect come in order, again until heard, and block nobody", async (s) => {
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
    assert.equal(new Set(connects.map((call) => call.id)).size, 1, "a repeat has the same id");
    assert.deepEqual([over.session, over.user, over.reason, over.signed], [id, "7", "client close", true]);
    assert.ok(backend.calls.indexOf(over) > backend.calls.indexOf(connects.at(-1)));
  });

  scenario("forward at connection and disconnect", async (s) => {
    const moments = [{ event: "connection", forward: true }, { event: "disconnect", forward: true }];
    const { backend, node } = await stage(s, {}, { on: moments });
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
