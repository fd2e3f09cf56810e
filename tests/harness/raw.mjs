// A raw TCP connection, and WebSocket frames written and read by hand.
import crypto from "node:crypto";
import net from "node:net";
import tls from "node:tls";
import { until } from "./deadline.mjs";

export const TEXT = 1;
export const BINARY = 2;
export const CLOSE = 8;
export const PING = 9;
export const PONG = 10;

function length(size) {
  if (size < 126) return Buffer.of(size);
  const head = size < 65_536 ? Buffer.alloc(3) : Buffer.alloc(9);
  head[0] = size < 65_536 ? 126 : 127;
  if (size < 65_536) head.writeUInt16BE(size, 1);
  else head.writeBigUInt64BE(BigInt(size), 1);
  return head;
}

/** The bytes of a client frame. `announce` writes another length than the payload has. */
export function frame(opcode, payload = "", { fin = true, reserved = 0, masked = true, announce } = {}) {
  const data = Buffer.from(payload);
  const size = length(announce ?? data.length);
  const first = (fin ? 0x80 : 0) | (reserved << 4) | opcode;
  if (!masked) return Buffer.concat([Buffer.of(first), size, data]);
  const mask = crypto.randomBytes(4);
  size[0] |= 0x80;
  return Buffer.concat([Buffer.of(first), size, mask, data.map((byte, index) => byte ^ mask[index % 4])]);
}

export class RawSocket {
  received = Buffer.alloc(0);
  frames = [];

  constructor(node) {
    const to = { port: node.port, host: "127.0.0.1" };
    this.socket = node.tls ? tls.connect({ ...to, rejectUnauthorized: false }) : net.connect(to);
    this.socket.setNoDelay(true);
    this.socket.on("data", (chunk) => {
      this.received = Buffer.concat([this.received, chunk]);
      if (this.upgraded) this.#readFrames();
    });
    this.socket.on("close", () => (this.closed = true));
    this.socket.on("error", () => {});
  }

  write(bytes) {
    this.socket.write(bytes);
  }

  /** Everything received until the peer closed. */
  async untilClosed() {
    await until(() => this.closed, () => `the peer closing; got ${this.received.subarray(0, 500)}`);
    return this.received.toString("latin1");
  }

  /** The head of the HTTP answer, once it is complete. */
  async head() {
    const end = await until(() => {
      const at = this.received.indexOf("\r\n\r\n");
      if (at < 0 && this.closed) throw new Error(`closed without an answer: ${this.received}`);
      return at >= 0 && at + 4;
    }, "an HTTP answer");
    return this.received.subarray(0, end).toString("latin1");
  }

  /** The WebSocket handshake; resolves with the head of the answer. */
  async upgrade(path, headers = {}) {
    const lines = { Host: "127.0.0.1", Upgrade: "websocket", Connection: "Upgrade", "Sec-WebSocket-Version": "13" };
    const all = { ...lines, "Sec-WebSocket-Key": crypto.randomBytes(16).toString("base64"), ...headers };
    this.write(`GET ${path} HTTP/1.1\r\n${Object.entries(all).map(([k, v]) => `${k}: ${v}\r\n`).join("")}\r\n`);
    const head = await this.head();
    this.answer = head;
    this.status = Number(head.split(" ")[1]);
    this.upgraded = this.status === 101;
    if (this.upgraded) {
      this.received = this.received.subarray(Buffer.byteLength(head, "latin1"));
      this.#readFrames();
    }
    return head;
  }

  #readFrames() {
    for (;;) {
      const bytes = this.received;
      if (bytes.length < 2) return;
      const short = bytes[1] & 0x7f;
      const start = short === 127 ? 10 : short === 126 ? 4 : 2;
      if (bytes.length < start) return;
      const size = short === 127 ? Number(bytes.readBigUInt64BE(2)) : short === 126 ? bytes.readUInt16BE(2) : short;
      if (bytes.length < start + size) return;
      this.frames.push({ opcode: bytes[0] & 0x0f, first: bytes[0], masked: bytes[1] >= 128, payload: bytes.subarray(start, start + size) });
      this.received = bytes.subarray(start + size);
    }
  }

  sendText = (text, options) => this.write(frame(TEXT, text, options));
  get texts() {
    return this.frames.filter(({ opcode }) => opcode === TEXT).map(({ payload }) => payload.toString("utf8"));
  }
  text = (matches) =>
    until(
      () => this.texts.find(matches) ?? (this.closed && Promise.reject(new Error(`closed; got ${this.texts}`))),
      () => `a text frame; got ${this.texts}`,
    );
  frame = (opcode) => until(() => this.frames.find((one) => one.opcode === opcode), () => `a frame of opcode ${opcode}`);

  /** Waits for the close and resolves with its code: 1005 for a close frame without a code, 1006 without a close frame. */
  async closeCode() {
    await until(() => this.closed || this.frames.some(({ opcode }) => opcode === CLOSE), "a close");
    const close = this.frames.find(({ opcode }) => opcode === CLOSE);
    if (!close) return 1006;
    this.write(frame(CLOSE, close.payload));
    return close.payload.length >= 2 ? close.payload.readUInt16BE(0) : 1005;
  }

  close() {
    this.socket.destroy();
  }
}
