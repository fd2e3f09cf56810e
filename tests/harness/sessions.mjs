// Sessions that are resumed: a Socket.IO client by hand that names what it resumes, and the records that nodes keep in Redis.
import assert from "node:assert/strict";
import { until } from "./deadline.mjs";
import { engineSocket } from "./engine.mjs";
import { published } from "./publish.mjs";
import { tokenFor } from "./token.mjs";

/** The user of every raw session. */
const USER = "7";
const SESSIONS = "roomcast:{roomcast:events}:sessions:";
const NODES = "roomcast:{roomcast:events}:nodes";

/** An event for the raw session's own room. */
export const toUser = (name, data, more) => ({ room: `user:${USER}`, event: name, data, ...more });

/** `redis.timeout` where Redis does not fail: a machine that pauses for two seconds must not look like a Redis that hangs. */
export const PATIENT = "10s";

/** `count` nodes on one Redis. */
export const nodesOn = (s, store, count, more = {}) =>
  Promise.all(Array.from({ length: count }, () => s.node({ redis: { url: store.url, timeout: PATIENT }, ...more })));

/** A Socket.IO client by hand on a WebSocket; `resume` is `{ pid, offset }`. `reply` is the payload of its CONNECT packet. */
export async function rawSession(s, node, resume = {}) {
  const socket = s.keep(await engineSocket(node));
  socket.opened = JSON.parse((await socket.text((text) => text.startsWith("0"))).slice(1));
  socket.sendText(`40${JSON.stringify({ token: tokenFor(USER), ...resume })}`);
  socket.reply = JSON.parse((await socket.text((text) => text.startsWith("40"))).slice(2));
  let asked = 0;
  /** Emits and resolves with the first argument of the acknowledgement. */
  socket.ask = async (...event) => {
    const id = (asked += 1);
    socket.sendText(`42${id}${JSON.stringify(event)}`);
    return JSON.parse((await socket.text((text) => text.startsWith(`43${id}[`))).slice(`43${id}`.length))[0];
  };
  return socket;
}

/** Connects until it is let in, as the stock client does after a close. */
export const rawSessionRetried = (s, node, resume) => until(() => rawSession(s, node, resume).catch(() => undefined), "the session connected again");

/** The events of these packets: `[name, …args, offset]`. */
const events = (packets) => packets.filter((text) => text.startsWith("42[")).map((text) => JSON.parse(text.slice(2)));

/** The first arguments of all events of this name. */
export const argumentsOf = (packets, name) => events(packets).filter(([event]) => event === name).map((event) => event[1]);

/** The offset of the first event of this name. */
export const offsetOf = (packets, name) => events(packets).find(([event]) => event === name).at(-1);

/** Publishes an event to the session itself and resolves with its offset, once the session has it. */
export async function offsetAfter(session, node, name) {
  await published(node, toUser(name, 1));
  await session.text((text) => text.includes(`"${name}"`));
  return offsetOf(session.texts, name);
}

let ends = 0;

/**
 * Publishes an end to the session and to these rooms, and waits until the session has it: what this process published before at this
 * node, to them or to the session itself, has arrived, or never will.
 */
export async function untilEnd(session, node, ...rooms) {
  const name = `end ${(ends += 1)}`;
  await published(node, { rooms: [`user:${USER}`, ...rooms], event: name, data: 0 });
  await session.text((text) => text.includes(`"${name}"`));
}

/**
 * Publishes to a room whose join was acknowledged, and insists that the session is in it or that the client got a new
 * session. Resolves with whether it got a new one.
 */
export async function isNewSession(again, before, node, room) {
  await published(node, { room: `room:${room}`, event: "late", data: 1 });
  await untilEnd(again, node, `room:${room}`);
  const fresh = again.reply.sid !== before.reply.sid;
  assert.deepEqual(argumentsOf(again.texts, "late"), fresh ? [] : [1], fresh ? "a new session" : "recovered without a room whose join was acknowledged");
  return fresh;
}

/** The keys of the nodes' hashes of session records. */
export const recordKeys = async (store) => (await store.cli("--scan", "--pattern", `${SESSIONS}*`)).split("\n").filter(Boolean);

/** All session records in Redis, as text. */
export async function records(store) {
  return (await Promise.all((await recordKeys(store)).map((key) => store.cli("HVALS", key)))).join("\n");
}

/** Waits until one record names all these rooms. */
export const recorded = (store, ...rooms) =>
  until(async () => {
    const all = (await records(store)).split("\n");
    return all.some((record) => rooms.every((room) => record.includes(JSON.stringify(room))));
  }, `a session record with ${rooms}`);

/** The times of the nodes' last heartbeats, in milliseconds. */
export async function heartbeats(store) {
  const scores = (await store.cli("ZRANGE", NODES, "0", "-1", "WITHSCORES")).split("\n");
  return scores.filter((_, index) => index % 2).map(Number);
}

/** The names of the nodes in the membership. */
export const nodeNames = async (store) => (await store.cli("ZRANGE", NODES, "0", "-1")).split("\n").filter(Boolean);

/** Waits for the stock client's `connects`-th connection and resolves with whether its session was recovered. */
export async function reconnected(client, connects = 2) {
  await until(() => client.connects === connects && client.socket.connected, () => `connection ${connects}; now ${client.connects}`);
  return client.socket.recovered;
}
