// A node with the ping interval of the public suites, and clients whose packets are read one by one.
import { after, before } from "node:test";
import WebSocket from "ws";
import { until } from "../harness/deadline.mjs";
import { Polling, SEPARATOR, enginePath } from "../harness/engine.mjs";
import { startNode } from "../harness/node.mjs";

export const PING_INTERVAL = 300;
// The suites have 200, which is no longer than a pause of a busy machine: the pong of a case would come too late.
export const PING_TIMEOUT = 5_000;
export const MAX_PAYLOAD = 1_000_000;

/**
 * One node for the cases of a file, in `stage.node`. The servers of the public suites let everybody in and recover
 * nothing, hence `anonymous` and a window of 0: with recovery, events carry an offset as one more argument.
 */
export function stageWith({ on, namespaces = ["/"] }) {
  const stage = {};
  before(async () => {
    const socketio = {
      namespaces,
      ping_interval: `${PING_INTERVAL}ms`,
      ping_timeout: `${PING_TIMEOUT}ms`,
      max_payload: `${MAX_PAYLOAD}B`,
      // Longer than what a case does before it connects: three heartbeats, or the end of a ping timeout.
      connect_timeout: "10s",
    };
    stage.node = await startNode({ auth: { anonymous: true }, rooms: [], on, recovery: { window: "0s" }, socketio });
  });
  after(async () => {
    await stage.node?.stop();
    stage.node?.assertNoPanic();
  });
  return stage;
}

/** A WebSocket on the Engine.IO path. It answers pings, and keeps them out of `next()`, unless `answerPings: false`. */
export class Socket {
  arrived = [];
  pings = 0;

  constructor(node, query = enginePath({ transport: "websocket" }), { answerPings = true } = {}) {
    this.socket = new WebSocket(node.socketUrl + query);
    this.socket.on("message", (data, isBinary) => {
      if (isBinary || !answerPings || data.toString() !== "2") return this.arrived.push(isBinary ? data : data.toString());
      this.pings += 1;
      this.send("3");
    });
    this.socket.on("close", () => (this.isClosed = true));
    // A refused handshake is an error, followed by a close.
    this.socket.on("error", () => {});
  }

  send = (packet) => this.socket.send(packet);
  close = () => this.socket.close();
  /** As late as by `connect_timeout`. */
  closed = () => until(() => this.isClosed, () => `the server closing; got ${this.arrived}`, 30_000);

  /** The next packet: text, or a Buffer. */
  async next() {
    await until(() => {
      if (this.isClosed && !this.arrived.length) throw new Error("closed");
      return this.arrived.length > 0;
    }, "a packet");
    return this.arrived.shift();
  }
}

/** A WebSocket session after the Engine.IO handshake. */
export async function openSocket(node, options) {
  const socket = new Socket(node, undefined, options);
  await socket.next();
  return socket;
}

/** A polling session after the Engine.IO handshake. */
export const openPolling = (node) => new Polling(node).open();

/** A WebSocket that upgrades the session of `polling`: it got the answer to its probe. */
export async function probe(node, polling) {
  const socket = new Socket(node, enginePath({ transport: "websocket", sid: polling.sid }));
  await until(() => socket.socket.readyState === WebSocket.OPEN, "the WebSocket open");
  socket.send("2probe");
  return { socket, answer: await socket.next() };
}

/** How many connections the node has closed because they did not join within `connect_timeout`. */
export const neverJoined = (node) => node.metric('roomcast_closes_total{reason="connect_timeout"}');

/** The next `count` packets of a polling session; pings are answered and left out. */
export async function pollPackets(polling, count) {
  const packets = [];
  while (packets.length < count) {
    const answer = await polling.get();
    if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text} after ${packets}`);
    for (const packet of answer.text.split(SEPARATOR)) {
      if (packet === "2") await polling.post("3");
      else packets.push(packet);
    }
  }
  return packets;
}
