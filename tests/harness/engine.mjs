// Engine.IO by hand: packets that the stock clients send, and packets that they never would.
import { request } from "./http.mjs";
import { RawSocket } from "./raw.mjs";

export const SEPARATOR = "\x1e";
export const enginePath = (parts = {}) => `/socket.io/?${new URLSearchParams({ EIO: "4", transport: "polling", ...parts })}`;

/** A polling session, request by request. */
export class Polling {
  constructor(node, headers = {}) {
    this.node = node;
    this.headers = headers;
  }

  /** The handshake; keeps the sid and the five announced values. */
  async open() {
    const answer = await this.request("GET");
    this.opened = JSON.parse(answer.text.slice(1));
    this.sid = this.opened.sid;
    return this;
  }

  request(method, body, { sid = this.sid, ...options } = {}) {
    const target = this.node.url + enginePath(sid === undefined ? {} : { sid });
    return request(target, { method, body, headers: { ...this.headers, ...options.headers } });
  }

  get = () => this.request("GET");
  post = (body, headers = { "content-type": "text/plain;charset=UTF-8" }) => this.request("POST", body, { headers });

  /** Joins the main namespace and resolves with the answer packet. */
  async join(auth) {
    await this.post(`40${auth ? JSON.stringify(auth) : ""}`);
    for (;;) {
      const packets = (await this.get()).text.split(SEPARATOR);
      const reply = packets.find((packet) => packet.startsWith("40") || packet.startsWith("44"));
      if (reply) return reply;
    }
  }
}

/** A raw WebSocket on the Engine.IO path, after its HTTP handshake. */
export async function engineSocket(node, parts = {}, headers = {}) {
  const socket = new RawSocket(node);
  await socket.upgrade(enginePath({ transport: "websocket", ...parts }), headers);
  return socket;
}

/** A WebSocket session that joined the main namespace. */
export async function joinedSocket(node, token) {
  const socket = await engineSocket(node);
  await socket.text((text) => text.startsWith("0"));
  socket.sendText(`40${JSON.stringify({ token })}`);
  await socket.text((text) => text.startsWith("40"));
  return socket;
}
