// A session continues on another node: after a cut, after kill -9, and while nodes or Redis are in trouble.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { argumentsOf, heartbeats, isNewSession, nodesOn, offsetAfter, rawSession, rawSessionRetried, reconnected, recorded, toUser, untilEnd } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };

suite("session takeover", () => {
  scenario("a connection that breaks is recovered on another node, several times in a row", async (s) => {
    const [a, b] = await nodesOn(s, await s.redis(), 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    await client.join("room:a");
    const { id } = client.socket;
    for (let turn = 1; turn <= 6; turn += 1) {
      balancer.target = turn % 2 ? b : a;
      await published(a, toUser("before", turn));
      await until(() => client.argsOf("before").length === turn, "the event before the cut");
      balancer.cut();
      await published(turn % 2 ? a : b, { room: "room:a", event: "missed", data: turn });
      assert.equal(await reconnected(client, turn + 1), true, `turn ${turn}`);
      assert.equal(client.socket.id, id);
    }
    await published(b, { room: "room:a", event: "end", data: 0 });
    await client.event("end");
    assert.deepEqual(client.argsOf("missed"), [1, 2, 3, 4, 5, 6].map((turn) => [turn]));
    assert.deepEqual(client.argsOf("before"), [1, 2, 3, 4, 5, 6].map((turn) => [turn]));
  });

  scenario("kill -9 of a node: clients are recovered on another node, with and without an event received, and after a volatile one", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const balancer = await s.proxy(a);
    const clients = await Promise.all(["7", "8", "9"].map((user) => s.io(balancer, { token: tokenFor(user), ...WEBSOCKET }).connected()));
    for (const client of clients) await client.join("room:a");
    await published(a, toUser("first", 1));
    await published(a, { room: "user:9", event: "shout", args: ["a string"], volatile: true });
    await clients[0].event("first");
    await clients[2].event("shout");
    await recorded(store, "user:7", "room:a");
    await recorded(store, "user:8", "room:a");
    await recorded(store, "user:9", "room:a");
    balancer.target = b;
    const ids = clients.map((client) => client.socket.id);
    await a.stop("SIGKILL");
    await published(b, { room: "room:a", event: "missed", data: 2 });
    for (const client of clients) {
      assert.equal(await reconnected(client, 2), true);
      assert.deepEqual(await client.event("missed"), [2]);
    }
    assert.deepEqual(clients.map((client) => client.socket.id), ids);
    await published(b, { room: "room:a", event: "live", data: 3 });
    for (const client of clients) await client.event("live");
    assert.deepEqual(clients.map((client) => client.argsOf("missed").length), [1, 1, 1]);
    assert.equal(clients[0].argsOf("first").length, 1);
  });

  scenario("a half-open connection on one node is replaced by a connection to another node", async (s) => {
    const [a, b] = await nodesOn(s, await s.redis(), 2);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    await published(a, toUser("first", 1));
    await client.event("first");
    balancer.freeze();
    balancer.target = b;
    await published(b, toUser("missed", 2));
    client.socket.io.engine.close();
    client.socket.io.connect?.();
    client.socket.connect();
    assert.equal(await reconnected(client, 2), true);
    await published(a, toUser("live", 3));
    await client.event("live");
    assert.deepEqual([client.argsOf("missed"), client.argsOf("live")], [[[2]], [[3]]]);
    await until(async () => (await a.metric('roomcast_closes_total{reason="replaced"}')) === 1, "the old one replaced");
    await until(async () => (await a.connections("socketio")) === 0, "the old connection is cut");
  });

  scenario("no other user can take over a session, and a session that ended is not resumed", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const client = await s.io(a, { token, ...WEBSOCKET }).connected();
    await published(a, toUser("first", 1));
    await client.event("first");
    await recorded(store, "user:7");
    const stolen = { pid: client.socket._pid, offset: client.socket._lastOffset };
    const thief = await s.io(b, { auth: { token: tokenFor("8"), ...stolen }, ...WEBSOCKET }).connected();
    assert.notEqual(thief.socket.id, client.socket.id);
    await published(b, toUser("second", 2));
    await client.event("second");
    await published(b, { rooms: ["user:7", "user:8"], event: "end", data: 0 });
    await thief.event("end");
    assert.equal(thief.argsOf("second").length, 0);
    client.socket.disconnect();
    await until(async () => (await a.connections("socketio")) === 0, "gone");
    const late = await s.io(b, { auth: { token, ...stolen }, ...WEBSOCKET }).connected();
    assert.notEqual(late.socket.id, client.socket.id);
    await published(b, toUser("later", 0));
    await late.event("later");
    assert.equal(late.argsOf("second").length, 0);
  });

  scenario("a node that was suspended does not use its old copy of a session that continued elsewhere", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const first = await rawSession(s, a);
    await first.ask("join", "left");
    const offset = await offsetAfter(first, a, "first");
    const resume = { pid: first.reply.pid, offset };
    await recorded(store, "room:left");
    // After three missed heartbeats the others count it as gone and take the record without asking.
    a.signal("SIGSTOP");
    await until(async () => {
      const times = await heartbeats(store);
      return Math.max(...times) - Math.min(...times) > 6_000;
    }, "the suspended node counts as gone");
    first.close();
    const second = await rawSessionRetried(s, b, resume);
    assert.equal(second.reply.sid, first.reply.sid, "recovered on the other node");
    await second.ask("join", "new");
    await second.ask("leave", "left");
    resume.offset = await offsetAfter(second, b, "second");
    a.signal("SIGCONT");
    await until(() => a.answers("/health"), "the suspended node ready again");
    await until(async () => (await a.connections("socketio")) === 0, "its client's disconnection is noticed");
    second.close();
    await until(async () => (await b.connections("socketio")) === 0, "gone");
    const third = await rawSessionRetried(s, a, resume);
    await published(a, { room: "room:new", event: "new", data: 1 });
    await published(a, { room: "room:left", event: "left", data: 1 });
    await untilEnd(third, a, "room:new", "room:left");
    if (third.reply.sid !== first.reply.sid) return; // A new session: the client knows.
    assert.deepEqual([argumentsOf(third.texts, "new"), argumentsOf(third.texts, "left")], [[1], []], "in the rooms that the session had last");
  });

  scenario("a node that cannot be reached loses its session to another node and does not use its old copy afterwards", async (s) => {
    const store = await s.redis();
    await store.cli("ACL", "SETUSER", "a", "on", ">secret", "~*", "&*", "+@all");
    const a = await s.node({ redis: { url: `redis://a:secret@127.0.0.1:${store.port}/0` } });
    const b = await s.node({ redis: { url: store.url } });
    const first = await rawSession(s, a);
    const resume = { pid: first.reply.pid, offset: await offsetAfter(first, a, "first") };
    await recorded(store, "user:7");
    const listening = async () => (await store.cli("PUBSUB", "CHANNELS", "roomcast:node:*")).split("\n").filter(Boolean).length;
    // Only its subscription breaks: heartbeats, reads and writes go on.
    await store.cli("ACL", "SETUSER", "a", "resetchannels");
    await until(async () => (await listening()) === 1, "one node that does not listen");
    const second = await rawSessionRetried(s, b, resume);
    assert.equal(second.reply.sid, first.reply.sid, "recovered on the other node");
    assert.deepEqual(await second.ask("join", "late"), { ok: true });
    resume.offset = await offsetAfter(second, b, "second");
    first.close();
    second.close();
    await until(async () => (await b.connections("socketio")) + (await a.connections("socketio")) === 0, "gone");
    await store.cli("ACL", "SETUSER", "a", "&*");
    await until(async () => (await listening()) === 2, "both nodes listen");
    assert.equal(await isNewSession(await rawSessionRetried(s, a, resume), first, a, "late"), false, "not recovered");
  });

  scenario("Redis out of memory: a node that is up is asked for its session, and its old record is not used", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const first = await rawSession(s, a);
    const offset = await offsetAfter(first, a, "first");
    await recorded(store, "user:7");
    await store.cli("CONFIG", "SET", "maxmemory-policy", "noeviction");
    await store.cli("CONFIG", "SET", "maxmemory", "1000000");
    await first.ask("join", "late");
    const last = Math.max(...(await heartbeats(store)));
    await until(() => Date.now() - last > 4_500, "three heartbeats refused");
    first.close();
    const again = await rawSessionRetried(s, b, { pid: first.reply.pid, offset });
    await store.cli("CONFIG", "SET", "maxmemory", "0");
    await published(b, { room: "room:late", event: "late", data: 1 });
    await untilEnd(again, b, "room:late");
    if (again.reply.sid !== first.reply.sid) return; // A new session: the client knows.
    assert.deepEqual(argumentsOf(again.texts, "late"), [1], "recovered in the room that its node knew of");
  });
});
