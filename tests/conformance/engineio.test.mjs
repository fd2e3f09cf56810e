// The cases of the public conformance suite of Engine.IO 4, under its names. Its server sends every message back; roomcast
// carries Socket.IO, so here a message is an event of a joined session, and a rule sends the event back.
// docs/protocol/socketio.md section 6 lists what differs.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { until } from "../harness/deadline.mjs";
import { SEPARATOR, enginePath } from "../harness/engine.mjs";
import { RawSocket } from "../harness/raw.mjs";
import { openPolling, openSocket, pollPackets, stageWith } from "./stage.mjs";
import { assertGone, polling, upgrade, upgradeThenConnect, upgradeThenPoll, websocket } from "./transport_cases.mjs";

const stage = stageWith({ on: [{ event: "echo", reply: { event: "echo", args: ["{args}"] } }] });
const run = (name, body) => test(name, () => body(stage.node));

const TEXT = '42["echo","hello"]';
const BINARY = '451-["echo",{"_placeholder":true,"num":0}]';
const BYTES = Buffer.from([1, 2, 3, 4]);

async function joinedPolling(node) {
  const session = await openPolling(node);
  assert.match(await session.join(), /^40\{"sid"/);
  return session;
}

async function joinedSocket(node) {
  const socket = await openSocket(node);
  socket.send("40");
  assert.match(await socket.next(), /^40\{"sid"/);
  return socket;
}

async function assertSentBack(node, packets) {
  const session = await joinedPolling(node);
  const sent = await session.post(packets.join(SEPARATOR));
  assert.deepEqual([sent.status, sent.text], [200, "ok"]);
  assert.deepEqual(await pollPackets(session, packets.length), packets);
}

async function assertEcho(socket) {
  socket.send(TEXT);
  assert.equal(await socket.next(), TEXT);
  socket.close();
}

describe("Engine.IO protocol", () => {
  describe("handshake", () => {
    describe("HTTP long-polling", () => {
      run("successfully opens a session", polling.opens);
      run("fails with an invalid 'EIO' query parameter", polling.refusesVersion);
      run("fails with an invalid 'transport' query parameter", polling.refusesTransport);
      run("fails with an invalid request method", polling.refusesMethod);
    });

    describe("WebSocket", () => {
      run("successfully opens a session", websocket.opens);
      run("fails with an invalid 'EIO' query parameter", websocket.refusesVersion);
      run("fails with an invalid 'transport' query parameter", websocket.refusesTransport);
    });
  });

  describe("message", () => {
    describe("HTTP long-polling", () => {
      run("sends and receives a payload containing one plain text packet", (node) => assertSentBack(node, [TEXT]));

      run("sends and receives a payload containing several plain text packets", (node) =>
        assertSentBack(node, ["test1", "test2", "test3"].map((text) => `42["echo","${text}"]`)));

      run("sends and receives a payload containing plain text and binary packets", (node) =>
        assertSentBack(node, [TEXT, BINARY, `b${BYTES.toString("base64")}`]));

      run("closes the session upon invalid packet format", async (node) => {
        const session = await openPolling(node);
        assert.ok([200, 400].includes((await session.post("abc")).status));
        await assertGone(session);
      });

      run("closes the session upon duplicate poll requests", async (node) => {
        await until(async () => {
          const session = await openPolling(node);
          const answers = await Promise.all([session.get(), session.get()]);
          // Each shard has its own listening socket, so either connection may be handled first.
          const [first, second] = answers.sort((a, b) => a.status - b.status);
          // On a busy machine the first ping can end one GET before the other comes; then another session tries.
          if (first.text === "2") return false;
          assert.deepEqual([first.status, first.text], [200, "1"]);
          assert.ok([400, 500].includes(second.status), String(second.status));
          await assertGone(session);
          return true;
        }, "two GETs at once");
      });

      run("closes the session upon cancelled polling request", async (node) => {
        await until(async () => {
          const session = await openPolling(node);
          const request = new RawSocket(node);
          request.write(`GET ${enginePath({ sid: session.sid })} HTTP/1.1\r\nHost: x\r\n\r\n`);
          // The node has usually read the GET when it answers this one; if not, another session tries.
          await node.get("/health/live");
          request.close();
          return (await session.get()).status === 400;
        }, "the session ended by a dropped GET");
      });
    });

    describe("WebSocket", () => {
      run("sends and receives a plain text packet", async (node) => assertEcho(await joinedSocket(node)));

      run("sends and receives a binary packet", async (node) => {
        const socket = await joinedSocket(node);
        socket.send(BINARY);
        socket.send(BYTES);
        assert.deepEqual([await socket.next(), await socket.next()], [BINARY, BYTES]);
        socket.close();
      });

      run("closes the session upon invalid packet format", async (node) => {
        const socket = await openSocket(node);
        socket.send("abc");
        await socket.closed();
      });
    });
  });

  describe("heartbeat", () => {
    describe("HTTP long-polling", () => {
      run("sends ping/pong packets", polling.heartbeat);
      run("closes the session upon ping timeout", polling.pingTimeout);
    });

    describe("WebSocket", () => {
      run("sends ping/pong packets", websocket.heartbeat);
      run("closes the session upon ping timeout", websocket.pingTimeout);
    });
  });

  describe("close", () => {
    describe("HTTP long-polling", () => run("forcefully closes the session", polling.closes));
    describe("WebSocket", () => run("forcefully closes the session", websocket.closes));
  });

  describe("upgrade", () => {
    run("successfully upgrades from HTTP long-polling to WebSocket", async (node) =>
      assertEcho(await upgrade(node, await joinedPolling(node))));
    run("ignores HTTP requests with same sid after upgrade", async (node) =>
      assertEcho(await upgradeThenPoll(node, await joinedPolling(node))));
    run("ignores WebSocket connection with same sid after upgrade", async (node) =>
      assertEcho(await upgradeThenConnect(node, await joinedPolling(node))));
  });
});
