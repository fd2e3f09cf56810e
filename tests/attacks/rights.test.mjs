// Rights follow the token: whoever comes back with less, or refreshes to less, is in no room that a fresh join would refuse,
// gets nothing that it missed there, and emits nothing into it.
import assert from "node:assert/strict";
import { SECRET, startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { rawSession, reconnected, recordKeys, recorded } from "../harness/sessions.mjs";
import { now, tokenFor } from "../harness/token.mjs";

const RULES = {
  auth: { leeway: "0s" },
  // Tests that ask it start one.
  backend: { url: "http://127.0.0.1:9", secret: SECRET, notify: [] },
  rooms: [
    { match: "user:{user}", join: "auto" },
    { match: "org:{claims.org}", join: "auto", joined: { event: "came", args: ["{user}"] }, left: { event: "went", args: ["{user}"] } },
    { match: "team:{claims.org}:<team>", join: "allow" },
    { match: "asked:<name>", join: "ask" },
    { match: "public:<name>", join: "allow" },
  ],
  on: [
    { event: "team", join: "team:{0}:{1}", ack: [{ ok: true }] },
    { event: "secret", join: "secret:{0}", ack: [{ ok: true }] },
    { event: "unsecret", leave: "secret:{0}", ack: [{ ok: true }] },
    { event: "asked", join: "asked:{0}", ack: [{ ok: true }] },
    { event: "public", join: "public:{0}", ack: [{ ok: true }] },
    { event: "pick", forward: true, ack: [{ ok: true }] },
    { event: "say", emit: [{ room: "secret:{0}", event: "said", args: ["{user}"] }], ack: [{ ok: true }] },
    { event: "say asked", emit: [{ room: "asked:{0}", event: "said", args: ["{user}"] }], ack: [{ ok: true }] },
  ],
};
const OK = [{ ok: true }];
const rich = (more) => tokenFor("7", { org: "acme", rooms: ["secret:*", "board"], ...more });
const poor = (more) => tokenFor("7", { org: "other", ...more });
const get = (node, path) => request(node.url + path, { headers: { authorization: `Bearer ${KEY}` } });
const refusedWith = async (code, answer) => assert.equal((await answer)[0].error?.code, code);

/** Takes what earlier releases do not write from all session records. */
const WITHOUT_REASONS = `local changed = 0
for _, key in ipairs(redis.call('KEYS', 'roomcast:{roomcast:events}:sessions:*')) do
  local all = redis.call('HGETALL', key)
  for at = 1, #all, 2 do
    local record, count = string.gsub(all[at + 1], '"by":"[^"]*",', '')
    redis.call('HSET', key, all[at], (string.gsub(record, '"claims":"[^"]*",', '')))
    changed = changed + count
  end
end
return changed`;

/** A stock client whose token the test changes, behind a proxy that it breaks. */
async function wanderer(s, balancer, token, options = {}) {
  const state = { token };
  const client = await s.io(balancer, { auth: (done) => done({ token: state.token }), transports: ["websocket"], ...options }).connected();
  client.comeBack = async (token, node) => {
    state.token = token;
    const connects = client.connects + 1;
    if (node) balancer.target = node;
    balancer.cut();
    return reconnected(client, connects);
  };
  return client;
}

suite("Rights follow the token", () => {
  scenario("/ws: a refresh leaves what the new token does not give, and joins what it brings", async ({ node, ws }) => {
    const one = await node(RULES);
    const bystander = await ws(one, { token: tokenFor("8", { org: "acme", rooms: ["secret:1"] }) }).welcomed();
    const client = await ws(one, { token: rich() }).welcomed();
    await client.join("secret:1", "team:acme:red", "public:p");
    await command(one, "/join", { user: "7", room: "put" });
    await bystander.event("came");
    client.send({ type: "auth", token: poor() });
    await until(() => client.messages.filter(({ type }) => type === "welcome").length === 2, "welcome again");
    const left = client.messages.filter(({ type }) => type === "left").map(({ room }) => room);
    assert.deepEqual(left.toSorted(), ["board", "org:acme", "secret:1", "team:acme:red"]);
    assert.ok(client.messages.some(({ type, room }) => type === "joined" && room === "org:other"));
    await bystander.event("went");
    for (const room of ["org:acme", "secret:1", "team:acme:red", "board"]) {
      await published(one, { room, event: "not for you", data: room });
      assert.equal((await client.ask({ type: "join", room })).code, "forbidden", room);
      assert.equal((await client.ask({ type: "join", room, since: "0" })).code, "forbidden", room);
    }
    assert.equal((await client.ask({ type: "event", event: "say", args: ["1"] })).data.error.code, "not_in_room");
    for (const room of ["org:other", "public:p", "put", "user:7"]) {
      await published(one, { room, event: "yours", data: room });
      await client.message(({ event, data }) => event === "yours" && data === room);
    }
    assert.deepEqual(client.eventsOf("not for you"), []);
    await bystander.message(({ event, data }) => event === "not for you" && data === "secret:1");
    // The same claims in a younger token change nothing.
    const before = client.messages.length;
    client.send({ type: "auth", token: poor({ iat: now(), jti: "another" }) });
    await until(() => client.messages.length > before, "welcome once more");
    assert.deepEqual(client.messages.slice(before).map(({ type }) => type), ["welcome"]);
  });

  scenario("/ws: a token whose claims cannot stand in a room's name is refused, as at connect", async ({ node, ws }) => {
    const one = await node(RULES);
    const client = await ws(one, { token: rich() }).welcomed();
    client.send({ type: "auth", token: tokenFor("7", { org: "a:b" }) });
    assert.equal((await client.message("error")).code, "forbidden_character");
    assert.equal((await client.ended()).code, 4401);
  });

  scenario("Socket.IO: a resume with a token whose claims cannot stand in a room's name is refused, as at connect", async (s) => {
    const one = await s.node(RULES);
    const balancer = await s.proxy(one);
    let token = rich();
    const client = await s.io(balancer, { auth: (done) => done({ token }), transports: ["websocket"] }).connected();
    token = tokenFor("7", { org: "a:b", rooms: ["secret:*"] });
    balancer.cut();
    assert.equal((await client.refused()).data.code, "forbidden_character");
    await until(async () => (await one.metric("roomcast_sessions")) === 0, "no session");
  });

  for (const where of ["the same node", "another node", "another node after its own was killed"]) {
    scenario(`Socket.IO: a resume with fewer claims on ${where} yields nothing that a fresh join refuses`, async (s) => {
      const store = await s.redis();
      const [a, b] = await Promise.all([0, 1].map(() => s.node({ ...RULES, redis: { url: store.url } })));
      const balancer = await s.proxy(a);
      const client = await wanderer(s, balancer, rich());
      const bystander = await s.io(b, { token: tokenFor("8", { org: "acme", rooms: ["secret:*"] }) }).connected();
      for (const event of [["secret", "1"], ["secret", "2"], ["team", "acme", "red"], ["public", "p"]]) assert.deepEqual(await client.ask(...event), OK);
      await command(a, "/join", { user: "7", room: "put" });
      assert.deepEqual(await bystander.ask("secret", "1"), OK);
      await published(a, { room: "user:7", event: "first", data: 1 });
      await client.event("first");
      await recorded(store, "secret:1", "secret:2", "put", "public:p");
      balancer.mute();
      // Missed in a room that the session leaves before it is lost, which the client never hears of.
      await published(a, { rooms: ["secret:2", "board"], event: "not for you", data: 1 });
      client.socket.emit("unsecret", "2");
      await until(async () => (await get(a, "/rooms/secret:2")).json().connections === 0, "left");
      await published(a, { rooms: ["secret:1", "org:acme", "team:acme:red"], event: "not for you", data: 2 });
      await published(a, { rooms: ["public:p"], event: "yours", data: 1 });
      await published(a, { rooms: ["put"], event: "yours", data: 2 });
      const id = client.socket.id;
      if (where.includes("killed")) {
        balancer.target = b;
        await a.stop("SIGKILL");
      }
      const target = where === "the same node" ? a : b;
      assert.equal(await client.comeBack(poor(), target), true, "recovered");
      assert.equal(client.socket.id, id);
      await until(() => client.argsOf("yours").length === 2, "what it missed in its rooms");
      await refusedWith("not_in_room", client.ask("say", "1"));
      await refusedWith("forbidden", client.ask("secret", "1"));
      await refusedWith("forbidden", client.ask("team", "acme", "red"));
      await published(b, { rooms: ["secret:1", "org:acme", "team:acme:red", "board"], event: "not for you", data: 3 });
      for (const room of ["org:other", "public:p", "put", "user:7"]) await published(b, { room, event: "yours", data: room });
      await until(() => client.argsOf("yours").length === 6, "live in its rooms");
      assert.deepEqual(client.argsOf("not for you"), []);
      await until(() => bystander.argsOf("not for you").length === 2, "the bystander's");
    });
  }

  scenario("what the backend decided stands for the same claims, and is decided again for others", async (s) => {
    const backend = s.serve(await startBackend());
    let allowed = true;
    backend.answer = (call) => {
      if (call.type === "join") return allowed ? { allow: true } : { allow: false, error: "no" };
      return call.event === "pick" ? { join: ["picked"] } : {};
    };
    const one = await s.node({ ...RULES, ...backend.config() });
    const balancer = await s.proxy(one);
    const client = await wanderer(s, balancer, rich());
    assert.deepEqual(await client.ask("asked", "1"), OK);
    await published(one, { room: "user:7", event: "first", data: 1 });
    await client.event("first");
    assert.equal(await client.comeBack(rich({ jti: "another", iat: now() })), true);
    assert.equal(backend.of("join").length, 1, "not asked again");
    assert.deepEqual(await client.ask("say asked", "1"), OK);
    assert.equal(await client.comeBack(poor()), true);
    assert.equal(backend.of("join").length, 2, "asked again");
    assert.equal(backend.of("join")[1].claims.org, "other");
    assert.deepEqual(await client.ask("say asked", "1"), OK);
    allowed = false;
    assert.equal(await client.comeBack(rich()), true);
    await refusedWith("not_in_room", client.ask("say asked", "1"));
    // What it answered to an event, only that event can ask again: the client gets a new session.
    assert.deepEqual(await client.ask("pick"), OK);
    assert.equal(await client.comeBack(rich({ iat: now() })), true);
    await published(one, { room: "picked", event: "yours", data: 1 });
    await client.event("yours");
    assert.equal(await client.comeBack(poor()), false, "a new session");
    await published(one, { room: "picked", event: "not for you", data: 1 });
    await published(one, { room: "user:7", event: "end", data: 1 });
    await client.event("end");
    assert.deepEqual(client.argsOf("not for you"), []);
    assert.equal(await one.metric('roomcast_recoveries_total{result="undecided"}'), 1);
  });

  scenario("two connections that resume one session at once, while the backend decides: the second one takes it over", async (s) => {
    const backend = s.serve(await startBackend());
    backend.answer = () => ({ allow: true });
    const one = await s.node({ ...RULES, ...backend.config() });
    const first = await rawSession(s, one, { token: rich() });
    first.sendText('420["asked","1"]');
    await first.text((text) => text.startsWith("430"));
    first.close();
    await until(async () => (await one.connections("socketio")) === 0, "gone");
    const waiting = [];
    backend.answer = () => new Promise((resolve) => waiting.push(() => resolve({ allow: true })));
    const again = async () => {
      const socket = s.keep(await engineSocket(one));
      socket.sendText(`40${JSON.stringify({ token: poor(), pid: first.reply.pid })}`);
      return socket;
    };
    const reply = async (socket) => JSON.parse((await socket.text((text) => text.startsWith("40"))).slice(2));
    const givenUp = await again();
    await until(() => waiting.length === 1, "asked again");
    const kept = await again();
    // The second one is served while the first one still waits.
    await published(one, { room: "public:p", event: "meanwhile", data: 1 });
    waiting.shift()();
    assert.equal((await reply(givenUp)).sid, first.reply.sid);
    assert.equal((await reply(kept)).sid, first.reply.sid);
    await until(() => givenUp.closed, "the first one replaced");
    kept.sendText('421["say asked","1"]');
    assert.equal(await kept.text((text) => text.startsWith("431")), '431[{"ok":true}]');
  });

  scenario("while the backend cannot decide again, nobody keeps what it had decided", async (s) => {
    const backend = s.serve(await startBackend());
    backend.answer = () => ({ allow: true });
    const one = await s.node({ ...RULES, ...backend.config({ timeout: "3s" }) });
    const balancer = await s.proxy(one);
    const client = await wanderer(s, balancer, rich());
    const plain = await s.ws(one, { token: rich() }).welcomed();
    assert.deepEqual(await client.ask("asked", "1"), OK);
    await plain.join("asked:1", "public:p");
    backend.answer = () => () => {};
    assert.equal(await client.comeBack(poor()), false, "a new session, which asks for its rooms itself");
    await refusedWith("not_in_room", client.ask("say asked", "1"));
    plain.send({ type: "auth", token: poor() });
    await plain.message(({ type, room }) => type === "left" && room === "asked:1");
    assert.equal((await plain.ask({ type: "event", event: "say asked", args: ["1"] })).data.error.code, "not_in_room");
  });

  scenario("the reasons move with a session by polling to another node, and a record of an earlier release has none", async (s) => {
    const [store, backend] = [await s.redis(), s.serve(await startBackend())];
    backend.answer = () => ({ allow: true });
    const config = { ...RULES, redis: { url: store.url }, ...backend.config() };
    const [a, b] = await Promise.all([0, 1].map(() => s.node(config)));
    const balancer = await s.proxy(a);
    const client = await wanderer(s, balancer, rich(), { transports: ["polling"] });
    assert.deepEqual(await client.ask("asked", "1"), OK);
    await published(a, { room: "user:7", event: "first", data: 1 });
    await client.event("first");
    await recorded(store, "asked:1", "org:acme");
    const holders = async () => {
      const keys = await recordKeys(store);
      const held = await Promise.all(keys.map((key) => store.cli("HVALS", key)));
      return keys.filter((_, at) => held[at].includes("asked:1"));
    };
    const [before] = await holders();
    assert.equal(await client.comeBack(rich(), b), true);
    assert.equal(backend.of("join").length, 1, "not asked again");
    await refusedWith("not_in_room", client.ask("say", "1"));
    assert.deepEqual(await client.ask("say asked", "1"), OK);
    // A record of an earlier release does not say why: the backend is asked, and rules decide.
    await until(async () => (await holders()).join() !== before && (await holders()).length === 1, "the record of the other node alone");
    balancer.target = a;
    await b.stop("SIGKILL");
    assert.notEqual(await store.cli("EVAL", WITHOUT_REASONS, "0"), "0");
    assert.equal(await client.comeBack(rich()), true);
    // By each attempt: one that the new node could not finish yet is followed by another.
    assert.ok(backend.of("join").length >= 2, "asked again");
    assert.deepEqual(await client.ask("say asked", "1"), OK);
  });

  scenario("/ws: what the backend decides on the old token counts for nothing once the new one is there", async (s) => {
    const backend = s.serve(await startBackend());
    const waiting = [];
    backend.answer = (call) => {
      if (call.claims.org !== "acme") return { allow: false, error: "no" };
      return new Promise((resolve) => waiting.push(() => resolve(call.type === "join" ? { allow: true } : { join: ["picked"] })));
    };
    const one = await s.node({ ...RULES, ...backend.config() });
    const client = await s.ws(one, { token: rich() }).welcomed();
    const join = client.ask({ type: "join", room: "asked:1" });
    await until(() => waiting.length === 1, "asked about the join");
    const welcomed = async (count) => until(() => client.messages.filter(({ type }) => type === "welcome").length === count, `welcome ${count}`);
    client.send({ type: "auth", token: poor() });
    await welcomed(2);
    waiting.shift()();
    assert.equal((await join).code, "refused");
    assert.deepEqual(backend.of("join").map(({ claims }) => claims.org), ["acme", "other"]);
    client.send({ type: "auth", token: rich() });
    await welcomed(3);
    const pick = client.ask({ type: "event", event: "pick" });
    await until(() => waiting.length === 1, "asked about the event");
    client.send({ type: "auth", token: poor() });
    await welcomed(4);
    waiting.shift()();
    assert.equal((await pick).data.error.code, "forbidden");
    for (const room of ["asked:1", "picked"]) await published(one, { room, event: "not for you", data: room });
    await published(one, { room: "user:7", event: "end", data: 1 });
    await client.event("end");
    assert.deepEqual(client.eventsOf("not for you"), []);
  });

  scenario("/ws: a replay that is under way ends with the right to its room", async (s) => {
    const one = await s.node(RULES);
    const proxy = await s.proxy(one);
    const count = 3000;
    const data = "x".repeat(2000);
    const first = await published(one, { room: "secret:1", event: "past", data });
    for (let sent = 0; sent < count; sent += 500) {
      await published(one, { events: Array.from({ length: 500 }, () => ({ room: "secret:1", event: "past", data })) });
    }
    const client = await s.ws(proxy, { token: rich() }).welcomed();
    proxy.stall();
    client.send({ type: "join", room: "secret:1", since: first });
    client.send({ type: "auth", token: poor() });
    await until(async () => (await get(one, "/rooms/secret:1")).json().connections === 0, "left");
    proxy.resume();
    await client.message(({ type, room }) => type === "left" && room === "secret:1");
    await published(one, { room: "user:7", event: "end", data: 1 });
    await client.event("end");
    const at = client.messages.findIndex(({ type, room }) => type === "left" && room === "secret:1");
    assert.ok(client.messages.some(({ type, recovered }) => type === "joined" && recovered), "the replay had begun");
    assert.deepEqual(client.messages.slice(at).filter(({ room }) => room === "secret:1").length, 1, "nothing after `left`");
    assert.ok(client.eventsOf("past").length < count, `${client.eventsOf("past").length} of ${count}`);
  });

  scenario("SSE: a reconnect with fewer claims gets nothing of the rooms that it had", async ({ node, sse }) => {
    const one = await node(RULES);
    const first = await sse(one, { token: rich(), rooms: ["secret:1", "public:p"] }).answered();
    await published(one, { room: "public:p", event: "yours", data: 1 });
    const { id } = await first.event("yours");
    first.close();
    for (const room of ["secret:1", "org:acme", "board"]) await published(one, { room, event: "not for you", data: 1 });
    await published(one, { room: "public:p", event: "yours", data: 2 });
    const again = { headers: { "last-event-id": id } };
    assert.equal((await sse(one, { token: poor(), rooms: ["secret:1", "public:p"], ...again }).answered()).status, 403);
    const allowed = await sse(one, { token: poor(), rooms: ["public:p"], ...again }).answered();
    await allowed.event("yours");
    for (const room of ["secret:1", "org:acme", "board"]) await published(one, { room, event: "not for you", data: 2 });
    await published(one, { room: "org:other", event: "brought", data: 1 });
    await allowed.event("brought");
    assert.deepEqual([allowed.eventsOf("not for you"), allowed.eventsOf("yours").map(({ data }) => data)], [[], ["2"]]);
  });

  scenario("a socket that has left all namespaces does not outlive its token", async (s) => {
    const one = await s.node({ ...RULES, socketio: { connect_timeout: "60s" } });
    const socket = s.keep(await engineSocket(one));
    await socket.text((text) => text.startsWith("0"));
    const exp = now() + 6;
    socket.sendText(`40${JSON.stringify({ token: tokenFor("7", { exp }) })}`);
    await socket.text((text) => text.startsWith("40"));
    socket.sendText("41");
    await until(async () => (await one.metric("roomcast_sessions")) === 0, "left");
    assert.equal(await one.connections("socketio"), 1);
    await until(async () => (await one.connections("socketio")) === 0, "closed at the end of its token", 20_000);
    assert.equal(await one.metric('roomcast_closes_total{reason="token_expired"}'), 1);
  });
});
