// One user on many connections, and one tenant with many users: they use up their share, and nobody else's.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const count = (length, item) => Array.from({ length }, (_, n) => item(n));
const code = ([answer]) => answer?.error?.code ?? "ok";

/** A clock that began now: `most(burst, rate)` is how many a bucket can have let pass since. */
function rates() {
  const began = Date.now();
  return { most: (burst, rate) => burst + rate * Math.ceil((Date.now() - began) / 1_000) };
}

/** How many of each code. */
const tally = (codes) => codes.reduce((sums, one) => ({ ...sums, [one]: (sums[one] ?? 0) + 1 }), {});

scenario("a user has so many connections, whatever the protocol; one that ends makes room", async ({ node, io, ws, sse }) => {
  const one = await node({ limits: { user_connections: 3 } });
  const token = tokenFor("7");
  const first = await io(one, { token }).connected();
  await ws(one, { token }).welcomed();
  await sse(one, { token, rooms: ["room:a"] }).answered();
  const refused = await io(one, { token, transports: ["websocket"] }).refused();
  assert.equal(refused.data.code, "too_many_connections");
  const plain = ws(one, { token });
  assert.equal((await plain.message("error")).code, "too_many_connections");
  assert.equal((await plain.ended()).code, 4429);
  assert.equal((await sse(one, { token, rooms: ["room:a"] }).answered()).status, 429);
  await io(one, { token: tokenFor("8") }).connected();
  assert.equal(await one.metric('roomcast_refusals_total{reason="connections"}'), 3);
  first.close();
  await until(async () => (await one.connections("socketio")) < 3, "the connection gone");
  await ws(one, { token }).welcomed();
});

scenario("a user who connects and leaves all the time has a pace, with when to come back; a storm of all connections passes", async (s) => {
  const node = await s.node({ limits: { user_connections: 8, user_connects_per_second: 1 } });
  const bystander = await witness(s, node);
  const token = tokenFor("7");
  const { most } = rates();
  const storm = async () => {
    const clients = await Promise.all(count(8, () => s.ws(node, { token }).welcomed()));
    clients.forEach((client) => client.close());
    await until(async () => (await node.connections("ws")) === 0, "all gone");
  };
  await storm();
  await storm();
  // A burst of 2 × 8 + 4 × 1, of which 4 are left.
  const answers = [];
  const attack = async () => {
    while (answers.filter(({ type }) => type === "error").length < 8) {
      const client = s.ws(node, { token });
      answers.push(await client.message(({ type }) => type === "welcome" || type === "error"));
      client.close();
      await client.ended();
    }
  };
  await bystander.during(attack());
  const refused = answers.filter(({ type }) => type === "error");
  const passed = 16 + answers.length - refused.length;
  assert.ok(passed >= 20 && passed <= most(20, 1), `${passed} let in, ${most(20, 1)} allowed`);
  assert.ok(refused.every(({ code: why, retry_after_ms: ms }) => why === "rate_limited" && ms > 0 && ms <= 2000), JSON.stringify(refused[0]));
  const sockets = count(6, () => s.io(node, { token, transports: ["websocket"] }));
  const error = await until(() => sockets.flatMap(({ errors }) => errors)[0], "a connect_error");
  assert.ok(error.data.code === "rate_limited" && error.data.retry_after_ms > 0, JSON.stringify(error.data));
  const streams = await Promise.all(count(6, () => s.sse(node, { token, rooms: ["room:a"] }).answered()));
  const { headers } = streams.find(({ status }) => status === 429);
  assert.match(headers["retry-after"], /^[12]$/);
  await until(async () => (await s.ws(node, { token }).message(({ type }) => type === "welcome" || type === "error")).type === "welcome", "let in again");
  bystander.unharmed();
});

scenario("a user's messages on all connections count together, with when to retry", async (s) => {
  const node = await s.node({ limits: { user_events_per_second: 1, rooms_per_session: 8 } });
  const bystander = await witness(s, node);
  const token = tokenFor("7");
  const clients = await Promise.all(count(8, () => s.io(node, { token, transports: ["websocket"] }).connected()));
  // A burst of 4 × 1 + 10 × 8 messages.
  const { most } = rates();
  const answers = await bystander.during(Promise.all(clients.flatMap((client) => count(20, (n) => client.ask("echo", n)))));
  const { ok, rate_limited: limited } = tally(answers.map(code));
  assert.ok(ok >= 80 && ok <= most(84, 1) && limited > 0, `${ok} passed, ${limited} refused`);
  const { message, retry_after_ms: retry } = answers.find((answer) => code(answer) === "rate_limited")[0].error;
  assert.match(message, /user_events_per_second/);
  assert.ok(Number.isInteger(retry) && retry > 0, `${retry}`);
  const plain = await s.ws(node, { token }).welcomed();
  for (let id = 1; id <= 50; id += 1) plain.send({ type: "event", event: "echo", data: id, id });
  await plain.message(({ type, data }) => type === "ack" && data.error?.code === "rate_limited");
  await until(async () => code(await clients[0].ask("echo", 1)) === "ok", "a message after the time that was named");
  assert.deepEqual(clients.flatMap((client) => client.disconnects), []);
  bystander.unharmed();
});

scenario("messages without an acknowledgement wait for the user's share, in order", async ({ node, io }) => {
  const one = await node({ limits: { user_events_per_second: 100, rooms_per_session: 1 } });
  const clients = await Promise.all(count(4, () => io(one, { token: tokenFor("7"), transports: ["websocket"] }).connected()));
  for (const client of clients) for (let n = 0; n < 150; n += 1) client.socket.emit("echo", n);
  for (const client of clients) {
    await until(() => client.argsOf("echoed").length === 150, () => `${client.argsOf("echoed").length} echoes`);
    assert.deepEqual(client.argsOf("echoed").flat(), count(150, (n) => n));
  }
});

scenario("a tenant's users count together, also after a fresh token on /ws", async ({ node, io, ws }) => {
  const one = await node({
    limits: { tenant_claim: "org.id", tenant_connections: 4, tenant_events_per_second: 1, rooms_per_session: 8 },
  });
  const token = (user, id) => tokenFor(user, { org: { id } });
  const clients = await Promise.all(count(3, (n) => io(one, { token: token(`acme-${n}`, "acme"), transports: ["websocket"] }).connected()));
  const plain = await ws(one, { token: token("7", "other") }).welcomed();
  plain.send({ type: "event", event: "echo", data: 1, id: 1 });
  assert.equal((await plain.message("ack")).data, 1);
  plain.send({ type: "auth", token: token("7", "acme") });
  await until(() => plain.messages.filter(({ type }) => type === "welcome").length === 2, "the second welcome");
  const refused = await io(one, { token: token("8", "acme"), transports: ["websocket"] }).refused();
  assert.equal(refused.data.code, "too_many_connections");
  const { most } = rates();
  const answers = await Promise.all(clients.flatMap((client) => count(40, (n) => client.ask("echo", n))));
  const { ok, rate_limited: limited } = tally(answers.map(code));
  assert.ok(ok >= 80 && ok <= most(84, 1) && limited > 0, `${ok} passed, ${limited} refused`);
  for (let id = 2; id <= 50; id += 1) plain.send({ type: "event", event: "echo", data: id, id });
  await plain.message(({ type, data }) => type === "ack" && data.error?.message.includes("tenant_events_per_second"));
  const others = await io(one, { token: token("9", "other"), transports: ["websocket"] }).connected();
  assert.equal(code(await others.ask("echo", 1)), "ok");
});

scenario("clients without a token share what their address may send, where addresses are counted", async ({ node, ws }) => {
  const limits = { user_events_per_second: 1, rooms_per_session: 8 };
  const answers = async (connections_per_ip) => {
    const one = await node({ auth: { anonymous: true }, limits: { ...limits, connections_per_ip } });
    const clients = await Promise.all(count(4, () => ws(one).welcomed()));
    for (const client of clients) for (let id = 1; id <= 60; id += 1) client.send({ type: "event", event: "echo", data: id, id });
    const acks = (client) => client.messages.filter(({ type }) => type === "ack");
    await until(() => clients.every((client) => acks(client).length === 60), "all answers");
    return tally(clients.flatMap(acks).map(({ data }) => data.error?.code ?? "ok"));
  };
  const { ok, rate_limited: limited } = await answers(100);
  assert.ok(ok >= 80 && limited > 50, `${ok} passed, ${limited} refused`);
  assert.deepEqual(await answers(0), { ok: 240 });
});

scenario("bytes of a connection are limited beside messages", async ({ node, io }) => {
  const one = await node({ limits: { bytes_per_second: "10kB" }, socketio: { max_payload: "10kB" } });
  const client = await io(one, { token: tokenFor("7"), transports: ["websocket"] }).connected();
  const piece = "x".repeat(9_000);
  // 16 MiB pass at once, for attachments: all but 136 pieces, and one or two a second.
  const answers = [];
  for (let part = 0; part < 20; part += 1) answers.push(...(await Promise.all(count(100, () => client.ask("echo", piece)))));
  const { ok, rate_limited: limited } = tally(answers.map(code));
  assert.ok(ok * 9_000 < 18_000_000 && limited > 20, `${ok} passed, ${limited} refused`);
  assert.match(answers.find((answer) => code(answer) === "rate_limited")[0].error.message, /bytes_per_second/);
  assert.equal(client.disconnects.length, 0);
});

scenario("joins are limited beside messages, on every protocol", async ({ node, io, ws, sse }) => {
  const one = await node({ limits: { joins_per_second: 1, rooms_per_session: 16, user_joins_per_second: 1 } });
  const token = tokenFor("7");
  const client = await io(one, { token, transports: ["websocket"] }).connected();
  // A burst of 4 + 16 rooms.
  const step = async (n) => [code(await client.ask("join", `${n}`)), code(await client.ask("leave", `${n}`))];
  const codes = [];
  const { most } = rates();
  while (codes.filter(([join]) => join === "rate_limited").length < 6) codes.push(await step(codes.length));
  const joins = tally(codes.map(([join]) => join));
  assert.ok(joins.ok >= 20 && joins.ok <= most(20, 1), JSON.stringify(joins));
  assert.deepEqual(tally(codes.map(([, leave]) => leave)), { ok: codes.length });
  const plain = await ws(one, { token }).welcomed();
  for (let n = 0; n < 40; n += 1) plain.send({ type: "join", room: `room:${n}`, id: n });
  const refused = await plain.message(({ type, code: why }) => type === "error" && why === "rate_limited");
  assert.ok(refused.retry_after_ms > 0 && refused.id !== undefined, JSON.stringify(refused));
  // What is left of the user's 4 + 10 × 16 joins is used up by other connections.
  let stream;
  for (let n = 0; n < 40 && stream?.status !== 429; n += 1) {
    stream = await sse(one, { token, rooms: count(12, (room) => `room:${n}-${room}`) }).answered();
  }
  assert.equal(stream.status, 429);
  assert.ok((await one.metric('roomcast_refusals_total{reason="rate"}')) > 0);
});

scenario("fresh tokens on `/ws` join no more rooms than joins may, and the old token counts until then", async ({ node, ws }) => {
  const limits = { rooms_per_session: 20, joins_per_second: 5, user_joins_per_second: 200 };
  const one = await node({ limits, rooms: [] });
  const tokens = ["a", "b"].map((name) => tokenFor("7", { rooms: count(20, (n) => `${name}${n}`) }));
  const client = await ws(one, { token: tokens[0] }).welcomed();
  // A burst of 20 + 4 × 5 joins: two tokens of 20 rooms.
  const { most } = rates();
  for (let n = 1; n <= 10; n += 1) client.send({ type: "auth", token: tokens[n % 2] });
  const { code, retry_after_ms: retry } = await client.message("error");
  assert.equal(code, "rate_limited");
  assert.ok(Number.isInteger(retry) && retry > 0, `${retry}`);
  client.send({ type: "ping" });
  await client.message("pong");
  const joined = client.messages.filter(({ type }) => type === "joined").length;
  assert.ok(joined >= 20 && joined <= most(60, 5), `${joined} joined`);
  assert.equal(client.end, undefined);
});

scenario("leaving and joining a namespace again and again joins no more rooms than joins may", async ({ node, keep }) => {
  const limits = { rooms_per_session: 20, joins_per_second: 5, user_joins_per_second: 200 };
  const one = await node({ limits, rooms: [] });
  const token = tokenFor("7", { rooms: count(20, (n) => `a${n}`) });
  const client = keep(await engineSocket(one));
  await client.text((text) => text.startsWith("0"));
  const { most } = rates();
  for (let n = 1; n <= 20; n += 1) client.sendText(`40${JSON.stringify({ token })}`), client.sendText("41");
  const { data } = JSON.parse((await client.text((text) => text.startsWith("44"))).slice(2));
  assert.equal(data.code, "rate_limited");
  assert.ok(Number.isInteger(data.retry_after_ms) && data.retry_after_ms > 0, JSON.stringify(data));
  await until(() => client.texts.filter((text) => /^4[04]/.test(text)).length === 20, "an answer to each");
  // The first, and a burst of 20 + 4 × 5 rooms.
  const joined = client.texts.filter((text) => text.startsWith("40")).length;
  assert.ok(joined >= 3 && 20 * joined <= most(100, 5), `${joined} joins of 20 rooms`);
  assert.ok(!client.closed);
});
