// Records of sessions that are not what their nodes know: written to a Redis that another took the place of, refused, or
// taken while their node lives. A client that was told of a room is in it wherever it comes back, or is told.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const SESSIONS = "roomcast:{roomcast:events}:sessions:";
const own = (name, data) => ({ room: "user:7", event: name, data });

/** A Socket.IO client by hand on a WebSocket, which names what it resumes. */
async function socket(s, node, resume = {}) {
  const raw = s.keep(await engineSocket(node));
  await raw.text((text) => text.startsWith("0"));
  raw.sendText(`40${JSON.stringify({ token, ...resume })}`);
  raw.reply = JSON.parse((await raw.text((text) => text.startsWith("40"))).slice(2));
  raw.ack = 0;
  /** The acknowledgement's first argument. */
  raw.ask = async (...event) => {
    const id = (raw.ack += 1);
    raw.sendText(`42${id}${JSON.stringify(event)}`);
    return JSON.parse((await raw.text((text) => text.startsWith(`43${id}[`))).slice(`43${id}`.length))[0];
  };
  return raw;
}

const events = (packets) => packets.filter((text) => text.startsWith("42[")).map((text) => JSON.parse(text.slice(2)));
const named = (packets, name) => events(packets).filter(([event]) => event === name).map((event) => event[1]);

/** Publishes to the client itself and answers the place that its client would name. */
async function placeOf(raw, node, name) {
  await published(node, own(name, 1));
  const text = await raw.text((one) => one.includes(`"${name}"`));
  return JSON.parse(text.slice(2)).at(-1);
}

async function records(store) {
  const keys = (await store.cli("--scan", "--pattern", `${SESSIONS}*`)).split("\n").filter(Boolean);
  return (await Promise.all(keys.map((key) => store.cli("HVALS", key)))).join("\n");
}

/** Of the nodes' hashes those that this server vouches for: all of it was written in its present life. */
async function marks(store) {
  const [, life] = /master_replid:(\w+)/.exec(await store.cli("INFO", "replication"));
  const keys = (await store.cli("--scan", "--pattern", `${SESSIONS}*`)).split("\n").filter(Boolean);
  return (await Promise.all(keys.map((key) => store.cli("HGET", key, "@")))).filter((mark) => mark === life);
}

/** What the client has of a room that it was told of: it is in it, or it knows that it has to ask again. */
async function holds(again, before, node, room) {
  await published(node, { room: `room:${room}`, event: "late", data: 1 });
  await published(node, own("end", 2));
  await again.text((text) => text.includes('"end"'));
  const told = again.reply.sid !== before.reply.sid;
  assert.deepEqual(named(again.texts, "late"), told ? [] : [1], told ? "a new session" : "recovered, without a room that was acknowledged");
  return told;
}

/** Comes back as often as it is sent away, as the stock client does. */
async function comeBack(s, node, resume) {
  return until(() => socket(s, node, resume).catch(() => undefined), "back");
}

/** Two nodes whose way to Redis can be turned from one server to its lagging replica. */
async function failover(s) {
  const old = await s.redis({ args: ["--repl-diskless-sync-delay", "0"] });
  const replica = await s.redis({ args: ["--replicaof", "127.0.0.1", String(old.port)] });
  await until(async () => /master_link_status:up/.test(await replica.cli("INFO", "replication")), "a replica that follows");
  const way = await s.proxy(old);
  const url = `redis://127.0.0.1:${way.port}/0`;
  const [a, b] = await Promise.all([0, 1].map(() => s.node({ redis: { url, timeout: "500ms" } })));
  const first = await socket(s, a);
  const offset = await placeOf(first, a, "first");
  await until(async () => (await records(replica)).includes("user:7"), "the record on the replica");
  return {
    a, b, first, old, replica, resume: { pid: first.reply.pid, offset },
    lag: () => replica.cli("REPLICAOF", "NO", "ONE"),
    promote: () => {
      way.target = replica;
      way.cut();
    },
  };
}

suite("records that are not what their nodes know", () => {
  scenario("a lagging replica is promoted, then the node dies: the session has the acknowledged room, or the client is told", async (s) => {
    const { a, b, first, replica, resume, lag, promote } = await failover(s);
    await lag();
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    promote();
    await until(async () => (await marks(replica)).length === 2, "all records written anew");
    await a.stop("SIGKILL");
    const again = await comeBack(s, b, resume);
    assert.equal(await holds(again, first, b, "late"), false, "recovered: its node had written the record anew");
  });

  scenario("a node dies with the master, and a lagging replica is promoted: its client is told", async (s) => {
    const { a, b, first, resume, lag, promote } = await failover(s);
    await lag();
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    await a.stop("SIGKILL");
    promote();
    await until(() => published(b, own("up", 0)).then(() => true, () => false), "a log again");
    assert.equal(await holds(await comeBack(s, b, resume), first, b, "late"), true, "a record that a replica had is not trusted");
  });

  scenario("a node that cannot be reached is robbed of a session: it does not take up its old copy afterwards", async (s) => {
    const store = await s.redis();
    await store.cli("ACL", "SETUSER", "a", "on", ">secret", "~*", "&*", "+@all");
    const a = await s.node({ redis: { url: `redis://a:secret@127.0.0.1:${store.port}/0` } });
    const b = await s.node({ redis: { url: store.url } });
    const first = await socket(s, a);
    const resume = { pid: first.reply.pid, offset: await placeOf(first, a, "first") };
    await until(async () => (await records(store)).includes("user:7"), "the record");
    const listening = async () => (await store.cli("PUBSUB", "CHANNELS", "roomcast:node:*")).split("\n").filter(Boolean).length;
    // Only its subscription breaks: it beats, reads and writes on.
    await store.cli("ACL", "SETUSER", "a", "resetchannels");
    await until(async () => (await listening()) === 1, "one that does not listen");
    const second = await comeBack(s, b, resume);
    assert.equal(second.reply.sid, first.reply.sid, "recovered on the other node");
    assert.deepEqual(await second.ask("join", "late"), { ok: true });
    resume.offset = await placeOf(second, b, "second");
    first.close();
    second.close();
    await until(async () => (await b.connections("socketio")) + (await a.connections("socketio")) === 0, "gone");
    await store.cli("ACL", "SETUSER", "a", "&*");
    await until(async () => (await listening()) === 2, "both listen");
    assert.equal(await holds(await comeBack(s, a, resume), first, a, "late"), false, "not recovered");
  });

  scenario("a record that Redis refuses: no older one is left to be taken", async (s) => {
    const store = await s.redis();
    await store.cli("ACL", "SETUSER", "a", "on", ">secret", "~*", "&*", "+@all");
    const a = await s.node({ redis: { url: `redis://a:secret@127.0.0.1:${store.port}/0` } });
    const b = await s.node({ redis: { url: store.url } });
    const first = await socket(s, a);
    const resume = { pid: first.reply.pid, offset: await placeOf(first, a, "first") };
    await until(async () => (await records(store)).includes("user:7"), "the record");
    await store.cli("ACL", "SETUSER", "a", "-hset");
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    await a.stop("SIGKILL");
    assert.equal(await holds(await comeBack(s, b, resume), first, b, "late"), true, "recovered from what?");
  });

  scenario("Redis hangs: a join is refused in time, leaves nothing behind, and works again", async (s) => {
    const store = await s.redis();
    const node = await s.node({ redis: { url: store.url, timeout: "500ms" } });
    const first = await socket(s, node);
    assert.deepEqual(await first.ask("join", "kept"), { ok: true });
    store.signal("SIGSTOP");
    const refused = await first.ask("join", "late");
    assert.equal(refused.error?.code, "unavailable", JSON.stringify(refused));
    assert.equal((await first.ask("join", "kept")).error?.code, "unavailable", "nobody knows whether that is on record");
    store.signal("SIGCONT");
    await until(() => node.answers("/health"), "well again");
    await published(node, { room: "room:late", event: "late", data: 1 });
    await published(node, { room: "room:kept", event: "kept", data: 1 });
    await published(node, own("end", 2));
    await first.text((text) => text.includes('"end"'));
    assert.deepEqual([named(first.texts, "late"), named(first.texts, "kept")], [[], [1]]);
    assert.deepEqual(await first.ask("join", "late"), { ok: true });
    await published(node, { room: "room:late", event: "late", data: 2 });
    await first.text((text) => text.includes('"late"'));
  });
});
