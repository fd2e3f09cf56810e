// The cases of Engine.IO that both public suites have, under names of their own: each file names them as its suite does.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { enginePath } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { MAX_PAYLOAD, PING_INTERVAL, PING_TIMEOUT, Socket, neverJoined, openPolling, openSocket, pollPackets, probe } from "./stage.mjs";

const BAD_VERSIONS = (transport) => [`/socket.io/?transport=${transport}`, enginePath({ EIO: "abc", transport })];
const BAD_TRANSPORTS = ["/socket.io/?EIO=4", enginePath({ transport: "abc" })];

function assertOpenPacket(packet, upgrades) {
  assert.equal(packet[0], "0");
  const { sid, ...rest } = JSON.parse(packet.slice(1));
  assert.equal(typeof sid, "string");
  assert.deepEqual(rest, { upgrades, pingInterval: PING_INTERVAL, pingTimeout: PING_TIMEOUT, maxPayload: MAX_PAYLOAD });
}

const assertRefused = async (node, path, method) => assert.equal((await request(node.url + path, { method })).status, 400, path);

const UNKNOWN_SESSION = 1;

/** The session is over: the sid is unknown. */
export const assertGone = async (polling) => assert.equal((await polling.get()).status, 400);

export const polling = {
  async opens(node) {
    const answer = await request(node.url + enginePath());
    assert.equal(answer.status, 200);
    assertOpenPacket(answer.text, ["websocket"]);
  },
  async refusesVersion(node) {
    for (const path of BAD_VERSIONS("polling")) await assertRefused(node, path);
  },
  async refusesTransport(node) {
    for (const path of BAD_TRANSPORTS) await assertRefused(node, path);
  },
  async refusesMethod(node) {
    for (const method of ["POST", "PUT"]) await assertRefused(node, enginePath(), method);
  },
  async heartbeat(node) {
    const session = await openPolling(node);
    for (let round = 0; round < 3; round += 1) {
      const ping = await session.get();
      assert.deepEqual([ping.status, ping.text], [200, "2"]);
      assert.equal((await session.post("3")).status, 200);
    }
    await session.post("1");
  },
  async pingTimeout(node) {
    const before = await neverJoined(node);
    const session = await openPolling(node);
    await until(async () => (await session.get()).status === 400, "the end of the ping timeout", 20_000);
    assert.equal(await neverJoined(node), before, "closed by the missing pong, before `connect_timeout`");
  },
  async closes(node) {
    await until(async () => {
      const session = await openPolling(node);
      const pending = session.get();
      // The node has usually read the GET when it answers this one. Each shard has its own listening socket, so the POST can
      // still be handled first: then the GET is for an unknown session, and another session tries.
      await node.get("/health/live");
      await session.post("1");
      const { status, text } = await pending;
      await assertGone(session);
      if (status === 400 && JSON.parse(text).code === UNKNOWN_SESSION) return false;
      // On a busy machine the first ping can be there before the GET.
      if (text === "2") return false;
      assert.deepEqual([status, text], [200, "6"]);
      return true;
    }, "a pending GET ended by a noop");
  },
};

export const websocket = {
  async opens(node) {
    const socket = new Socket(node);
    assertOpenPacket(await socket.next(), []);
    socket.close();
  },
  async refusesVersion(node) {
    for (const path of BAD_VERSIONS("websocket")) await new Socket(node, path).closed();
  },
  async refusesTransport(node) {
    for (const path of BAD_TRANSPORTS) await new Socket(node, path).closed();
  },
  async heartbeat(node) {
    const socket = await openSocket(node, { answerPings: false });
    for (let round = 0; round < 3; round += 1) {
      assert.equal(await socket.next(), "2");
      socket.send("3");
    }
    socket.close();
  },
  async pingTimeout(node) {
    const before = await neverJoined(node);
    await (await openSocket(node, { answerPings: false })).closed();
    assert.equal(await neverJoined(node), before, "closed by the missing pong, before `connect_timeout`");
  },
  /** The reference ignores `1` on WebSocket; the missing pong ends the session in both. */
  async closes(node) {
    const socket = await openSocket(node, { answerPings: false });
    socket.send("1");
    await socket.closed();
  },
};

/** The session of `session` moves to the WebSocket that this resolves with. */
export async function upgrade(node, session) {
  const { socket, answer } = await probe(node, session);
  assert.equal(answer, "3probe");
  assert.deepEqual(await pollPackets(session, 1), ["6"], "a noop ends the polling");
  socket.send("5");
  return socket;
}

/** Upgrades without polling in between, then polls with the same sid. */
export async function upgradeThenPoll(node, session) {
  const { socket } = await probe(node, session);
  socket.send("5");
  // A GET that overtakes the `5` still gets the noop.
  await until(async () => (await session.get()).status === 400, "polling refused");
  return socket;
}

/** Upgrades, then opens a second WebSocket with the same sid. */
export async function upgradeThenConnect(node, session) {
  const { socket } = await probe(node, session);
  socket.send("5");
  await new Socket(node, enginePath({ transport: "websocket", sid: session.sid })).closed();
  assert.ok(!socket.isClosed);
  return socket;
}
