// The backend belongs to all: what one user asks, or makes fail, costs the others nothing.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { until, within } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const rooms = [
  { match: "user:{user}", join: "auto" },
  { match: "chat:<id>", join: "ask" },
  { match: "open:<id>", join: "allow" },
];
const on = [
  { event: "ask", join: "chat:{0}", ack: ["joined"] },
  { event: "enter", join: "open:{0}", ack: ["entered"] },
  { event: "leave", leave: "chat:{0}", ack: ["left"] },
  { event: "say", emit: [{ room: "chat:{0}", event: "said", args: ["{1}"], include_caller: true }], ack: ["said"] },
  { event: "echo", ack: ["{0}"] },
  { event: "send", forward: true },
  { event: "report", forward: true },
];

/** The default of `backend.per_user`. */
const SHARE = 8;

async function stage(s, more = {}, config = {}) {
  const backend = s.serve(await startBackend());
  const node = await s.node({ rooms, on, ...backend.config(more), ...config });
  const clients = (user, count) => Promise.all(Array.from({ length: count }, () => s.io(node, { token: user && tokenFor(user), ...WEBSOCKET }).connected()));
  return { backend, node, clients };
}

const after = (ms, answer) => (response) => setTimeout(() => response.end(JSON.stringify(answer)), ms);

scenario("130 slow asks of one user, and those of anonymous clients of one address, do not delay a bystander's", async (s) => {
  const { backend, node, clients } = await stage(s, { timeout: "30s" }, { auth: { anonymous: true } });
  const held = [];
  backend.answer = ({ user }) => (user === "witness" ? { ack: ["at once"] } : (response) => held.push(response));
  // One each at a time, so that they would fill all places of the backend.
  const hogs = [...await clients("hog", 130), ...await clients(undefined, 70)];
  const bystander = await witness(s, node, { step: async (client) => assert.deepEqual(await client.ask("send", 1), ["at once"]) });
  const asked = Promise.all(hogs.map((hog) => new Promise((resolve) => hog.socket.emit("send", 1, (...answer) => resolve(answer)))));
  // None of them is answered while the bystander is: it waits for nobody.
  await bystander.during(until(() => held.length >= 2 * SHARE, "the share of both sources"));
  assert.equal(held.length, 2 * SHARE, "of each source at once");
  for (let answered = 0; answered < hogs.length; answered += 1) (await until(() => held[answered], `request ${answered}`)).end("{}");
  assert.deepEqual((await asked).flat(), [], "the others get their share");
  bystander.unharmed();
});

scenario("one user has at most backend.per_user requests under way, whatever the sessions", async (s) => {
  const { backend, clients } = await stage(s, { per_user: 3, timeout: "30s" });
  const held = [];
  backend.answer = ({ user }) => (user === "hog" ? (response) => held.push(response) : {});
  const hogs = await clients("hog", 10);
  const asked = Promise.all(hogs.map((hog) => hog.ask("send", 1)));
  await until(() => held.length === 3, "three held");
  const [bystander] = await clients("bystander", 1);
  for (let n = 0; n < 20; n += 1) assert.deepEqual(await bystander.ask("send", n), []);
  assert.equal(held.length, 3);
  for (let given = 0; given < 10; given += 1) {
    const response = await until(() => held[given], `request ${given}`);
    assert.ok(held.length - given <= 3);
    response.end("{}");
  }
  await asked;
});

scenario("a tenant with many users, whose requests hang, does not delay the users of another", async (s) => {
  const { backend, node } = await stage(s, { timeout: "6s", concurrency: 16 }, { limits: { tenant_claim: "org" } });
  backend.answer = ({ claims }) => (claims.org === "small" ? { ack: ["ok"] } : () => {});
  const of = (org, user) => s.io(node, { token: tokenFor(user, { org }), ...WEBSOCKET }).connected();
  const [bystander, ...users] = await Promise.all([of("small", "7"), ...Array.from({ length: 60 }, (_, n) => of("large", `${n}`))]);
  const asked = Promise.all(users.map((user) => user.ask("send", 1)));
  await until(() => backend.calls.length === 8, "the tenant has half of the places");
  for (let n = 0; n < 20; n += 1) assert.deepEqual(await bystander.ask("send", n), ["ok"]);
  assert.equal(backend.calls.filter(({ claims }) => claims.org === "large").length, 8, "before any of them timed out");
  assert.ok((await asked).every(([{ error }]) => error.code === "backend_timeout"));
});

scenario("502 for everything that one user sends, 50 times a second, refuses no ask of others", async (s) => {
  const { backend, node, clients } = await stage(s);
  backend.answer = ({ user }) => (user === "hog" ? { status: 502, body: "" } : { ack: ["ok"] });
  const [[hog], [bystander]] = [await clients("hog", 1), await clients("bystander", 1)];
  const attack = s.repeat(async () => {
    const [{ error }] = await hog.ask("send", 1);
    assert.match(error.code, /^backend_(error|unavailable)$/);
    await new Promise((resolve) => setTimeout(resolve, 20));
  });
  await until(async () => (await node.metric('roomcast_backend_requests_total{result="resting",type="event"}')) > 0, "the user's own requests rest");
  for (let n = 0; n < 20; n += 1) assert.deepEqual(await bystander.ask("send", n), ["ok"]);
  await attack.stop();
});

scenario("several users without an answer do not refuse those who get one", async (s) => {
  // The bystander's are answered by this process: the timeout is longer than it may be stopped.
  const { backend, clients } = await stage(s, { timeout: "3s" });
  backend.answer = ({ user }) => (user === "bystander" ? { ack: ["ok"] } : () => {});
  const hogs = (await Promise.all(Array.from({ length: 8 }, (_, n) => clients(`hog-${n}`, 1)))).flat();
  const [bystander] = await clients("bystander", 1);
  let rounds = 0;
  const attack = s.repeat(async () => {
    const answers = await Promise.all(hogs.map((hog) => hog.ask("send", 1)));
    rounds += answers.every(([{ error }]) => error.code === "backend_timeout");
  });
  while (rounds < 2) assert.deepEqual(await bystander.ask("send", 1), ["ok"]);
  for (let n = 0; n < 20; n += 1) assert.deepEqual(await bystander.ask("send", n), ["ok"]);
  await attack.stop();
});

scenario("an event that hangs for many users rests alone: others are answered, also where nobody else asks for seconds", async (s) => {
  const { backend, node, clients } = await stage(s, { timeout: "3s" });
  backend.answer = ({ event }) => (event === "report" ? () => {} : { ack: ["ok"] });
  const hogs = (await Promise.all(Array.from({ length: 8 }, (_, n) => clients(`hog-${n}`, 1)))).flat();
  const [bystander] = await clients("bystander", 1);
  const rests = () => node.output.match(/fail at once for a second/g)?.length ?? 0;
  const attack = s.repeat(() => Promise.all(hogs.map((hog) => hog.ask("report", 1))));
  await until(() => rests() > 0, "the event that hangs rests", 30_000);
  for (let n = 0; n < 10; n += 1) assert.deepEqual(await bystander.ask("send", n), ["ok"]);
  // Once a second it may be one that tries whether the event still hangs.
  await until(async () => (await bystander.ask("report", 1))[0].error.code === "backend_unavailable", "the event fails at once for the bystander too");
  await attack.stop();
});

scenario("what a session asks does not block its own events that need no backend, on Socket.IO and /ws", async (s) => {
  const { backend, node, clients } = await stage(s, { timeout: "30s" });
  const held = [];
  backend.answer = () => (response) => held.push(response);
  const [client] = await clients("7", 1);
  const plain = await s.ws(node, { token: tokenFor("8") }).welcomed();
  const pending = [client.ask("ask", "1"), client.ask("send", 1), plain.ask({ type: "join", room: "chat:1" }), plain.ask({ type: "event", event: "send", data: 1 })];
  await until(() => held.length === 2, "the first of each is asked");
  // Nothing is answered before all of this is.
  for (let n = 0; n < 10; n += 1) {
    assert.deepEqual(await client.ask("echo", n), [n]);
    assert.deepEqual(await client.ask("enter", `${n}`), ["entered"]);
    assert.equal((await plain.ask({ type: "event", event: "echo", data: n })).data, n);
    assert.equal((await plain.ask({ type: "join", room: `open:${n}` })).type, "joined");
  }
  plain.send({ type: "ping" });
  await plain.message("pong");
  assert.equal(held.length, 2, "in order: the second waits for the first");
  for (let answered = 0; answered < 4; answered += 1) (await until(() => held[answered], "the next")).end('{"allow":true}');
  await Promise.all(pending);
});

scenario("order: forwarded events of a session arrive one after the other, and what depends on an asked room waits for it", async (s) => {
  const { backend, clients } = await stage(s);
  backend.answer = ({ type, args }) => after(type === "join" ? 100 : Math.random() * 10, { allow: true, ack: args });
  const [client] = await clients("7", 1);
  const sent = Array.from({ length: 50 }, (_, n) => client.ask("send", n));
  assert.deepEqual((await Promise.all(sent)).flat(), Array.from({ length: 50 }, (_, n) => n));
  assert.deepEqual(backend.of("event").map(({ args }) => args[0]), Array.from({ length: 50 }, (_, n) => n));
  const together = await Promise.all([client.ask("ask", "1"), client.ask("say", "1", "hello"), client.ask("leave", "1"), client.ask("say", "1", "gone")]);
  assert.deepEqual(together.slice(0, 3), [["joined"], ["said"], ["left"]]);
  assert.equal(together[3][0].error.code, "not_in_room");
  assert.deepEqual(client.argsOf("said"), [["hello"]]);
  client.socket.emit("send", "last");
  client.socket.disconnect();
  await until(() => backend.of("event").some(({ args }) => args[0] === "last"), "what was sent before leaving");
});

scenario("a client that leaves a namespace and comes back while its event is at the backend loses neither", async (s) => {
  const { backend, clients } = await stage(s, {}, { on: [{ namespace: "/chat", event: "send", forward: true }], socketio: { namespaces: ["/", "/chat"] } });
  const held = [];
  backend.answer = () => (response) => held.push(response);
  const [client] = await clients("7", 1);
  const chat = client.socket.io.socket("/chat", { auth: client.socket.auth });
  await until(() => chat.connected, "in /chat");
  chat.emit("send", 1);
  chat.emit("send", 2);
  chat.disconnect();
  chat.connect();
  await until(() => held.length === 1, "the first event");
  backend.answer = () => ({});
  held[0].end("{}");
  await until(() => chat.connected, "in /chat again");
  await until(() => backend.of("event").length === 2, "both events");
  assert.deepEqual(backend.of("event").map(({ args }) => args[0]), [1, 2]);
  assert.deepEqual([client.connects, client.disconnects], [1, []]);
});

for (const transport of ["url", "stream"]) {
  scenario(`200 forwarded events to a backend that hangs fail within backend.timeout all together (${transport})`, async (s) => {
    const redis = transport === "stream" && (await s.redis());
    const backend = s.serve(await startBackend());
    backend.answer = () => () => {};
    const table = redis ? { backend: { stream: "inbox", notify: [], timeout: "4s" }, redis: { url: redis.url } } : backend.config({ timeout: "4s" });
    const node = await s.node({ rooms: rooms.filter(({ join }) => join !== "ask"), on: on.filter(({ join }) => !join?.startsWith("chat")), ...table });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    redis && redis.signal("SIGSTOP");
    const begun = Date.now();
    let failed = 0;
    const asked = Array.from({ length: 200 }, (_, n) => client.ask("send", n).finally(() => (failed += 1)));
    assert.deepEqual(await client.ask("echo", "passes"), ["passes"]);
    assert.equal(failed, 0, "without waiting for the backend");
    const codes = (await Promise.all(asked)).map(([answer]) => answer.error.code);
    const took = Date.now() - begun;
    redis && redis.signal("SIGCONT");
    assert.ok(took >= 3_800 && took < 7_800, `${took} ms: one timeout, not two`);
    assert.ok(codes.every((code) => ["backend_timeout", "backend_unavailable"].includes(code)), `${new Set(codes)}`);
    assert.ok(backend.calls.length < 5, "those whose time was over were not sent");
  });
}

scenario("the queue is bounded for each user and in sum: an error with retry_after_ms, counted, and others are not refused", async (s) => {
  const { backend, node, clients } = await stage(s, { timeout: "8s", queue: 200, queue_per_user: 10, per_user: 2 });
  backend.answer = ({ user }) => (user === "bystander" ? { ack: ["ok"] } : () => {});
  const users = (await Promise.all(Array.from({ length: 30 }, (_, n) => clients(`hog-${n}`, 1)))).flat();
  const [bystander] = await clients("bystander", 1);
  let timedOut = 0;
  const ask = async (client, n) => {
    const answer = await client.ask("send", n);
    timedOut += answer[0].error.code === "backend_timeout";
    return answer;
  };
  const asked = Promise.all(users.flatMap((client) => Array.from({ length: 30 }, (_, n) => ask(client, n))));
  await until(async () => (await node.metric('roomcast_backend_requests_total{result="busy",type="event"}')) > 400, "refusals");
  const held = await node.metric('roomcast_memory_bytes{kind="pending"}');
  assert.ok(held > 0, "what waits is charged to the memory budget");
  for (let n = 0; n < 20; n += 1) assert.deepEqual(await bystander.ask("send", n), ["ok"]);
  assert.equal(timedOut, 0, "while the others wait");
  const errors = (await within(asked, "all answers")).map(([answer]) => answer.error);
  const refused = errors.filter(({ code }) => code === "rate_limited");
  assert.ok(refused.length >= 30 * 20 && refused.length < 30 * 30, `${refused.length} refused`);
  assert.ok(refused.every(({ retry_after_ms: ms, message }) => ms > 0 && /backend/.test(message)), JSON.stringify(refused[0]));
  assert.equal(await node.metric('roomcast_events_refused_total{reason="rate_limited",source="client"}'), refused.length);
  await until(async () => (await node.metric('roomcast_memory_bytes{kind="pending"}')) < held, "places come back");
});
