// Messages that begin and do not end, from clients that show life in every other way.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { until } from "../harness/deadline.mjs";
import { joinedSocket } from "../harness/engine.mjs";
import { BINARY, PING, PONG, TEXT, frame } from "../harness/raw.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const CONTINUATION = 0;
// This process may be stopped for a while before it answers a ping.
const SOCKETIO = { ping_interval: "400ms", ping_timeout: "8s" };
const incomplete = (node) => node.metric('roomcast_closes_total{reason="incomplete"}');

/** Answers each ping of the server, in both protocols. */
function alive(socket) {
  let answered = 0;
  socket.socket.on("data", () => {
    for (; answered < socket.frames.length; answered += 1) {
      const { opcode, payload } = socket.frames[answered];
      if (opcode === PING) socket.write(frame(PONG, payload));
      if (opcode === TEXT && payload.toString() === "2") socket.sendText("3");
    }
  });
}

describe("unfinished messages", { concurrency: 1 }, () => {
  scenario("/ws: a fragment whose message never ends, from a client that answers pings", async (s) => {
    const one = await s.node({ socketio: SOCKETIO });
    const bystander = await witness(s, one);
    const socket = s.raw(one);
    await socket.upgrade(`/ws?token=${tokenFor("7")}`);
    alive(socket);
    socket.write(frame(TEXT, "x".repeat(100_000), { fin: false }));
    assert.equal(await socket.closeCode(), 1008);
    assert.equal(await incomplete(one), 1);
    bystander.unharmed();
  });

  scenario("Socket.IO: attachments that never come, from a client that answers pings", async (s) => {
    const one = await s.node({ socketio: SOCKETIO });
    const bystander = await witness(s, one);
    const socket = s.keep(await joinedSocket(one, tokenFor("7")));
    alive(socket);
    socket.sendText('452-["echo",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]');
    socket.write(frame(BINARY, Buffer.alloc(100_000)));
    await socket.closeCode();
    assert.equal(await incomplete(one), 1);
    assert.equal(await one.metric('roomcast_memory_bytes{kind="unfinished"}'), 0);
    bystander.unharmed();
  });

  scenario("large messages one after the other, each in time, are no such thing", async (s) => {
    // A message may last for two pings.
    const one = await s.node({ socketio: { ...SOCKETIO, ping_interval: "2s" } });
    const socket = s.raw(one);
    await socket.upgrade(`/ws?token=${tokenFor("7")}`);
    alive(socket);
    const began = Date.now();
    const message = JSON.stringify({ type: "event", event: "echo", data: "x".repeat(50_000), id: 1 });
    const [start, end] = [frame(TEXT, message.slice(0, 30_000), { fin: false }), frame(CONTINUATION, message.slice(30_000))];
    socket.write(start);
    let sent = 0;
    while (Date.now() < began + 8_000) {
      // With the end of a message comes the start of the next one.
      socket.write(Buffer.concat([end, start]));
      sent += 1;
      await until(() => socket.texts.filter((text) => text.includes('"ack"')).length >= sent, () => `acknowledgement ${sent}; closed: ${socket.closed}, got ${socket.texts.length}: ${socket.texts.at(-1)?.slice(0, 200)}`);
      assert.ok(!socket.closed);
    }
    assert.equal(await incomplete(one), 0);
  });
});
