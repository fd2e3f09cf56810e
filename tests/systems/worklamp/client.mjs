// The socket service of Worklamp's frontend: the rooms on screen are joined again after every connection.
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
      // A recovered session is still in its rooms.
      if (!this.socket.recovered) for (const [kind, id] of this.#onScreen) this.socket.emit(`join:${kind}`, id, () => {});
    });
  }

  /** Shows a project or a channel instead of the one before; resolves when the server has accepted. */
  async show(kind, id) {
    await this.hide(kind);
    const answer = await this.socket.timeout(15_000).emitWithAck(`join:${kind}`, id);
    if (!answer.success) throw new Error(answer.error);
    this.#onScreen.set(kind, id);
  }

  async hide(kind) {
    const shown = this.#onScreen.get(kind);
    this.#onScreen.delete(kind);
    if (shown !== undefined) await this.socket.timeout(15_000).emitWithAck(`leave:${kind}`, shown);
  }

  typing(isTyping) {
    this.socket.emit(isTyping ? "typing:start" : "typing:stop", this.#onScreen.get("channel"));
  }

  /** Also while offline: the client sends it after the reconnection. */
  setStatus(status) {
    this.socket.emit("status:set", status);
  }

  /** The delays of the next reconnection attempts, in milliseconds. */
  delays(count) {
    const { backoff } = this.socket.io;
    const delays = Array.from({ length: count }, () => backoff.duration());
    backoff.reset();
    return delays;
  }
}
