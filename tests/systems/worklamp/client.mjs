// Worklamp's socket service as its frontend has it: what is on screen is joined, again after every new connection.
import { io } from "socket.io-client";

export class SocketService {
  #onScreen = new Map();

  constructor(url, token, options = {}) {
    this.socket = io(url, {
      forceNew: true,
      auth: { token },
      reconnection: true,
      reconnectionDelay: 1000,
      reconnectionDelayMax: 30_000,
      ...options,
    });
    this.socket.on("connect", () => {
      // What was recovered is still in its rooms.
      if (!this.socket.recovered) for (const [kind, id] of this.#onScreen) this.socket.emit(`join:${kind}`, id, () => {});
    });
  }

  /** Shows a project or a channel instead of the one before; resolves with the server's word. */
  async show(kind, id) {
    await this.hide(kind);
    const answer = await this.socket.timeout(5000).emitWithAck(`join:${kind}`, id);
    if (!answer.success) throw new Error(answer.error);
    this.#onScreen.set(kind, id);
  }

  async hide(kind) {
    const shown = this.#onScreen.get(kind);
    this.#onScreen.delete(kind);
    if (shown !== undefined) await this.socket.timeout(5000).emitWithAck(`leave:${kind}`, shown);
  }

  typing(isTyping) {
    this.socket.emit(isTyping ? "typing:start" : "typing:stop", this.#onScreen.get("channel"));
  }

  /** Also while offline: the client keeps it and sends it when it is back. */
  setStatus(status) {
    this.socket.emit("status:set", status);
  }

  /** Milliseconds until its next attempts. */
  delays(count) {
    const { backoff } = this.socket.io;
    const delays = Array.from({ length: count }, () => backoff.duration());
    backoff.reset();
    return delays;
  }
}
