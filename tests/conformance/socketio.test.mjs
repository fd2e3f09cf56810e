// The cases of the public conformance suite of Socket.IO 5, under its names. The rules below do what its server does.
// docs/protocol/socketio.md section 6 lists what differs.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { until } from "../harness/deadline.mjs";
import { tokenFor } from "../harness/token.mjs";
import { openPolling, openSocket, stageWith } from "./stage.mjs";
import { polling, upgrade, upgradeThenConnect, upgradeThenPoll, websocket } from "./transport_cases.mjs";

const NAMESPACES = ["/", "/custom"];
const rules = (namespace) => [
  { event: "connection", namespace, reply: { event: "auth", args: ["{auth}"] } },
  { event: "message", namespace, reply: { event: "message-back", args: ["{args}"] } },
  { event: "message-with-ack", namespace, ack: ["{args}"] },
];
const stage = stageWith({ on: NAMESPACES.flatMap(rules), namespaces: NAMESPACES });
const run = (name, body) => test(name, () => body(stage.node));

const ATTACHED = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
const ATTACHMENTS = [Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6])];

/** Sends CONNECT and reads both answers: the session's id, and the event `auth`, which must be `expected`. */
async function assertConnects(socket, prefix, payload, expected) {
  socket.send(`40${prefix}${payload ? JSON.stringify(payload) : ""}`);
  const reply = await socket.next();
  assert.ok(reply.startsWith(`40${prefix}`), reply);
  const handshake = JSON.parse(reply.slice(2 + prefix.length));
  assert.deepEqual(Object.keys(handshake), ["sid"]);
  assert.equal(typeof handshake.sid, "string");
  assert.equal(await socket.next(), `42${prefix}["auth",${JSON.stringify(expected)}]`);
}

async function connected(node) {
  const socket = await openSocket(node);
  await assertConnects(socket, "", undefined, {});
  return socket;
}

/** Sends a packet with attachments to a joined session and expects `head` back, with the same attachments. */
async function assertAttachmentsBack(node, packet, head) {
  const socket = await connected(node);
  for (const part of [packet, ...ATTACHMENTS]) socket.send(part);
  assert.deepEqual([await socket.next(), await socket.next(), await socket.next()], [head, ...ATTACHMENTS]);
  socket.close();
}

async function assertAnswer(node, packet, answer) {
  const socket = await connected(node);
  socket.send(packet);
  assert.equal(await socket.next(), answer);
  socket.close();
}

async function assertCloses(socket, packet) {
  socket.send(packet);
  await socket.closed();
}

describe("Engine.IO protocol", () => {
  describe("handshake", () => {
    describe("HTTP long-polling", () => {
      run("should successfully open a session", polling.opens);
      run("should fail with an invalid 'EIO' query parameter", polling.refusesVersion);
      run("should fail with an invalid 'transport' query parameter", polling.refusesTransport);
      run("should fail with an invalid request method", polling.refusesMethod);
    });

    describe("WebSocket", () => {
      run("should successfully open a session", websocket.opens);
      run("should fail with an invalid 'EIO' query parameter", websocket.refusesVersion);
      run("should fail with an invalid 'transport' query parameter", websocket.refusesTransport);
    });
  });

  describe("heartbeat", () => {
    describe("HTTP long-polling", () => {
      run("should send ping/pong packets", polling.heartbeat);
      run("should close the session upon ping timeout", polling.pingTimeout);
    });

    describe("WebSocket", () => {
      run("should send ping/pong packets", websocket.heartbeat);
      run("should close the session upon ping timeout", websocket.pingTimeout);
    });
  });

  describe("close", () => {
    describe("HTTP long-polling", () => run("should forcefully close the session", polling.closes));
    describe("WebSocket", () => run("should forcefully close the session", websocket.closes));
  });

  describe("upgrade", () => {
    const upgrades = (how) => async (node) => (await how(node, await openPolling(node))).close();
    run("should successfully upgrade from HTTP long-polling to WebSocket", upgrades(upgrade));
    run("should ignore HTTP requests with same sid after upgrade", upgrades(upgradeThenPoll));
    run("should ignore WebSocket connection with same sid after upgrade", upgrades(upgradeThenConnect));
  });
});

describe("Socket.IO protocol", () => {
  describe("connect", () => {
    const connects = (prefix, payload, expected) => async (node) => {
      const socket = await openSocket(node);
      await assertConnects(socket, prefix, payload, expected);
      socket.close();
    };
    // The token is checked, and never handed on; the rest of the payload is.
    const payload = { token: tokenFor("123"), device: "abc" };
    run("should allow connection to the main namespace", connects("", undefined, {}));
    run("should allow connection to the main namespace with a payload", connects("", payload, { device: "abc" }));
    run("should allow connection to a custom namespace", connects("/custom,", undefined, {}));
    run("should allow connection to a custom namespace with a payload", connects("/custom,", payload, { device: "abc" }));

    run("should disallow connection to an unknown namespace", async (node) => {
      const socket = await openSocket(node);
      socket.send("40/random");
      assert.equal(await socket.next(), '44/random,{"message":"Invalid namespace"}');
      socket.close();
    });

    run("should disallow connection with an invalid handshake", async (node) => assertCloses(await openSocket(node), "4abc"));

    // Pings are answered, so it is `connect_timeout` that ends the connection.
    run("should close the connection if no handshake is received", async (node) => (await openSocket(node)).closed());
  });

  describe("disconnect", () => {
    run("should disconnect from the main namespace", async (node) => {
      const socket = await connected(node);
      const { pings } = socket;
      socket.send("41");
      await until(() => socket.pings > pings, "the next ping");
      assert.deepEqual(socket.arrived, [], "nothing but the ping");
      socket.close();
    });

    run("should connect then disconnect from a custom namespace", async (node) => {
      const socket = await connected(node);
      await until(() => socket.pings > 0, "a ping");
      await assertConnects(socket, "/custom,", undefined, {});
      socket.send("41/custom");
      socket.send('42["message","message to main namespace"]');
      assert.equal(await socket.next(), '42["message-back","message to main namespace"]');
      socket.close();
    });
  });

  describe("message", () => {
    run("should send a plain-text packet", (node) =>
      assertAnswer(node, '42["message",1,"2",{"3":[true]}]', '42["message-back",1,"2",{"3":[true]}]'));

    run("should send a packet with binary attachments", (node) =>
      assertAttachmentsBack(node, `452-["message",${ATTACHED}]`, `452-["message-back",${ATTACHED}]`));

    run("should send a plain-text packet with an ack", (node) =>
      assertAnswer(node, '42456["message-with-ack",1,"2",{"3":[false]}]', '43456[1,"2",{"3":[false]}]'));

    run("should send a packet with binary attachments and an ack", (node) =>
      assertAttachmentsBack(node, `452-789["message-with-ack",${ATTACHED}]`, `462-789[${ATTACHED}]`));

    const closes = (packet) => async (node) => assertCloses(await connected(node), packet);
    run("should close the connection upon invalid format (unknown packet type)", closes("4abc"));
    run("should close the connection upon invalid format (invalid payload format)", closes("42{}"));
    const badId = '42abc["message-with-ack",1,"2",{"3":[false]}]';
    run("should close the connection upon invalid format (invalid ack id)", closes(badId));
  });
});
