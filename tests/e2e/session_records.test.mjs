// The records of sessions in Redis: a room whose join was acknowledged is in the record, or the client gets a new session.
import assert from "node:assert/strict";
import os from "node:os";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { published } from "../harness/publish.mjs";
import { CLOSE } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { argumentsOf, isNewSession, nodesOn, offsetAfter, rawSession, rawSessionRetried, recorded, recordKeys, toUser, untilEnd } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

/** How many nodes' records this server vouches for: all of them were written in its present replication history. */
async function confirmed(store) {
  const [, history] = /master_replid:(\w+)/.exec(await store.cli("INFO", "replication"));
  const marks = await Promise.all((await recordKeys(store)).map((key) => store.cli("HGET", key, "@")));
  return marks.filter((mark) => mark === history).length;
}

/** Two nodes behind a proxy that leads to a Redis, or after `promote()` to its lagging replica. */
async function failover(s) {
  const old = await s.redis({ args: ["--repl-diskless-sync-delay", "0"] });
  const replica = await s.redis({ args: ["--replicaof", "127.0.0.1", String(old.port)] });
  await until(async () => /master_link_status:up/.test(await replica.cli("INFO", "replication")), "a replica that follows");
  const proxy = await s.proxy(old);
  const url = `redis://127.0.0.1:${proxy.port}/0`;
  const [a, b] = await Promise.all([0, 1].map(() => s.node({ redis: { url } })));
  const first = await rawSession(s, a);
  const offset = await offsetAfter(first, a, "first");
  await recorded(replica, "user:7");
  return {
    a, b, first, old, replica, resume: { pid: first.reply.pid, offset },
    lag: () => replica.cli("REPLICAOF", "NO", "ONE"),
    promote: () => {
      proxy.target = replica;
      proxy.cut();
    },
  };
}

/** The key of the node's hash that has the record of this pid. */
async function hashWith(store, pid) {
  const keys = await recordKeys(store);
  const holding = await Promise.all(keys.map((key) => store.cli("HEXISTS", key, pid)));
  return keys[holding.indexOf("1")];
}

suite("session records", () => {
  scenario("a lagging replica is promoted, then the node is killed: the session is recovered in the acknowledged room", async (s) => {
    const { a, b, first, replica, resume, lag, promote } = await failover(s);
    await lag();
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    promote();
    await until(async () => (await confirmed(replica)) === 2, "all records written anew");
    await a.stop("SIGKILL");
    const again = await rawSessionRetried(s, b, resume);
    assert.equal(await isNewSession(again, first, b, "late"), false, "recovered: its node wrote the record anew");
  });

  scenario("a node is killed with the master, and a lagging replica is promoted: the client gets a new session", async (s) => {
    const { a, b, first, resume, lag, promote } = await failover(s);
    await lag();
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    await a.stop("SIGKILL");
    promote();
    await until(() => published(b, toUser("up", 0)).then(() => true, () => false), "publishing works again");
    assert.equal(await isNewSession(await rawSessionRetried(s, b, resume), first, b, "late"), true, "the replica's old record is not used");
  });

  scenario("a record that Redis refuses: the older record is removed, and the client gets a new session", async (s) => {
    const store = await s.redis();
    await store.cli("ACL", "SETUSER", "a", "on", ">secret", "~*", "&*", "+@all");
    const a = await s.node({ redis: { url: `redis://a:secret@127.0.0.1:${store.port}/0` } });
    const b = await s.node({ redis: { url: store.url } });
    const first = await rawSession(s, a);
    const resume = { pid: first.reply.pid, offset: await offsetAfter(first, a, "first") };
    await recorded(store, "user:7");
    await store.cli("ACL", "SETUSER", "a", "-hset");
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    await a.stop("SIGKILL");
    assert.equal(await isNewSession(await rawSessionRetried(s, b, resume), first, b, "late"), true, "recovered without a record");
  });

  scenario("kill -9 right after an acknowledged join: the session is recovered in the room, or the client gets a new session", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const first = await rawSession(s, a);
    const offset = await offsetAfter(first, a, "first");
    await recorded(store, "user:7");
    await first.ask("join", "late");
    await a.stop("SIGKILL");
    await published(b, { room: "room:late", event: "late", data: 1 });
    const again = await rawSessionRetried(s, b, { pid: first.reply.pid, offset });
    await untilEnd(again, b, "room:late");
    if (again.reply.sid !== first.reply.sid) return; // A new session: the client knows.
    assert.deepEqual(argumentsOf(again.texts, "late"), [1], "recovered, and without what the acknowledged room had");
  });

  scenario("a node that takes over a session is killed before it has written the record: the next node recovers the session", async (s) => {
    const store = await s.redis();
    const proxy = await s.proxy(store);
    const [a, c] = await nodesOn(s, store, 2);
    const b = await s.node({ redis: { url: `redis://127.0.0.1:${proxy.port}/0` } });
    await until(async () => (await confirmed(store)) === 3, "the records of all nodes are used");
    const first = await rawSession(s, a);
    const there = await s.ws(b, { token: tokenFor("7") }).welcomed();
    const resume = { pid: first.reply.pid, offset: await offsetAfter(first, a, "first") };
    // Once it has read so far: it would not look for a session of a client that is ahead of it.
    await there.event("first");
    await recorded(store, "user:7");
    const key = await hashWith(store, first.reply.pid);
    await a.stop("SIGKILL");
    // The node takes the record and never learns of it. It may wait for the answer to something else first, and send the client away.
    const come = async () => {
      proxy.mute();
      const socket = s.keep(await engineSocket(b));
      socket.sendText(`40${JSON.stringify({ token: tokenFor("7"), ...resume })}`);
      return socket;
    };
    let socket = await come();
    await until(async () => {
      if (socket.closed || socket.frames.some(({ opcode }) => opcode === CLOSE)) socket = await come().catch(() => socket);
      return (await store.cli("HEXISTS", key, first.reply.pid)) === "0";
    }, "the record is taken");
    await b.stop("SIGKILL");
    await published(c, toUser("missed", 1));
    const again = await rawSessionRetried(s, c, resume);
    await untilEnd(again, c);
    assert.deepEqual([again.reply.sid, argumentsOf(again.texts, "missed")], [first.reply.sid, [1]]);
  });

  scenario("a session in many rooms has a record in parts: killed, it is recovered in the rooms it was in last", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    await until(async () => (await confirmed(store)) === 2, "the records of both nodes are used");
    const first = await rawSession(s, a);
    const { pid } = first.reply;
    const name = (n) => `${n}-${"long".repeat(40)}`;
    const ask = async (...event) => assert.deepEqual(await first.ask(...event), { ok: true });
    for (let n = 0; n < 30; n += 1) await ask("join", name(n));
    const offset = await offsetAfter(first, a, "first");
    await ask("leave", name(3));
    await ask("join", name(30));
    const key = await hashWith(store, pid);
    const fields = async (key) => (await store.cli("HKEYS", key)).split("\n").filter((field) => field.startsWith(pid));
    assert.ok((await fields(key)).length > 5, "its head, its base and parts");
    await a.stop("SIGKILL");
    const some = [0, 3, 29, 30];
    const publishTo = async (event) => {
      for (const n of some) await published(b, { room: `room:${name(n)}`, event, data: n });
    };
    await publishTo("missed");
    const again = await rawSessionRetried(s, b, { pid, offset });
    await publishTo("live");
    await untilEnd(again, b, ...some.map((n) => `room:${name(n)}`));
    assert.equal(again.reply.sid, first.reply.sid);
    const got = (event) => argumentsOf(again.texts, event).toSorted((x, y) => x - y);
    assert.deepEqual([got("missed"), got("live")], [[0, 29, 30], [0, 29, 30]]);
    const there = await hashWith(store, pid);
    await until(async () => (await fields(there)).length > 1, "the record of its new node, in parts too");
    again.sendText("41");
    await until(async () => (await fields(there)).length === 0, "nothing is left of a session that has ended");
  });

  scenario("a session that continues on another core of its node keeps its record", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const shardOf = (id) => Buffer.from(id, "base64url")[0];
    const first = await rawSession(s, a);
    const offset = await offsetAfter(first, a, "first");
    const resume = { pid: first.reply.pid, offset };
    const old = shardOf(resume.pid);
    const again = await until(async () => {
      const session = await rawSession(s, a, resume);
      assert.equal(session.reply.sid, first.reply.sid, "recovered");
      return shardOf(session.opened.sid) !== old && session;
    }, "the session on another core");
    // The first core has written or removed what it had to, once a session that began there later is on record.
    const later = await until(async () => {
      const session = await rawSession(s, a);
      return shardOf(session.opened.sid) === old && session;
    }, "a session on the first core");
    await until(() => hashWith(store, later.reply.pid), "its record");
    await a.stop("SIGKILL");
    await published(b, toUser("missed", 1));
    const last = await rawSessionRetried(s, b, { pid: resume.pid, offset });
    await untilEnd(last, b);
    assert.deepEqual([last.reply.sid, argumentsOf(last.texts, "missed")], [again.reply.sid, [1]]);
  }, { skip: os.availableParallelism() < 2 && "a node has one core here" });

  scenario("Redis hangs during a join: the join is refused in time, leaves nothing behind, and succeeds later", async (s) => {
    const store = await s.redis();
    const node = await s.node({ redis: { url: store.url, timeout: "2s" } });
    const first = await rawSession(s, node);
    assert.deepEqual(await first.ask("join", "kept"), { ok: true });
    store.signal("SIGSTOP");
    const refused = await first.ask("join", "late");
    assert.equal(refused.error?.code, "unavailable", JSON.stringify(refused));
    assert.equal((await first.ask("join", "kept")).error?.code, "unavailable", "it is unknown whether the record was written");
    store.signal("SIGCONT");
    await until(() => node.answers("/health"), "ready again");
    await published(node, { room: "room:late", event: "late", data: 1 });
    await published(node, { room: "room:kept", event: "kept", data: 1 });
    await untilEnd(first, node, "room:late", "room:kept");
    assert.deepEqual([argumentsOf(first.texts, "late"), argumentsOf(first.texts, "kept")], [[], [1]]);
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    await published(node, { room: "room:late", event: "late", data: 2 });
    await first.text((text) => text.includes('"late"'));
  });

  scenario("an unchanged session is written again every fifth of the window, however often it changed before", async (s) => {
    const store = await s.redis();
    const [node] = await nodesOn(s, store, 1, { recovery: { window: "10s" } });
    const client = await rawSession(s, node);
    const written = async () => {
      const stats = await store.cli("INFO", "commandstats");
      const calls = (name) => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
      // Presence runs one script a second, which calls HSET once.
      return calls("hset") - calls("evalsha");
    };
    for (let n = 0; n < 15; n += 1) {
      const before = await written();
      await client.ask(n % 2 ? "leave" : "join", "a");
      await until(async () => (await written()) > before, "the record");
    }
    const [before, begun] = [await written(), Date.now()];
    await until(async () => (await written()) > before && Date.now() > begun + 4_500, "4.5 seconds without a change");
    const [more, seconds] = [(await written()) - before, (Date.now() - begun) / 1_000];
    assert.ok(more <= seconds / 2 + 2, `${more} writes within ${seconds} seconds of an unchanged session`);
  });
});
