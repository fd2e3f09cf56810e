// The realtime module of BranchBase's frontend: one socket for all threads, and a status badge.
import { io } from "socket.io-client";

/** A signed-in user: `token()` resolves with a valid token, which it refreshes when needed. */
export class Session {
  constructor(api, tokens) {
    Object.assign(this, { api, tokens });
  }

  async token() {
    if (Date.now() >= this.tokens.expiresAt - 100) {
      this.tokens = await this.api.post("/auth/refresh", { refreshToken: this.tokens.refreshToken });
    }
    return this.tokens.token;
  }
}

export class Realtime {
  #offline;
  #trying = false;

  /** `onStatus` gets `live`, `reconnecting` or `offline`; `poll` is called every `pollEvery` ms while offline. */
  constructor({ url, onStatus = () => {}, poll = async () => {}, pollEvery = 8000, options = {} }) {
    Object.assign(this, { onStatus, poll, pollEvery });
    this.status = "offline";
    const auth = (give) => this.session.token().then((token) => give({ token }), () => give({}));
    this.socket = io(url, { autoConnect: false, reconnectionAttempts: 5, auth, ...options });
    this.socket.on("connect", () => this.#become("live"));
    // Not active: the server or the user closed the socket, and the client does not reconnect.
    this.socket.on("disconnect", () => (this.socket.active ? this.#become("reconnecting") : this.#gaveUp()));
    this.socket.on("connect_error", () => this.socket.active || this.#gaveUp());
    this.socket.io.on("reconnect_failed", () => this.#gaveUp());
  }

  /** After a sign-in, also as another user: an open socket reconnects with the new token. */
  signedIn(session) {
    this.session = session;
    if (this.socket.active || this.#offline) this.socket.disconnect().connect();
  }

  openThread() {
    if (this.socket.active) return;
    this.#become("reconnecting");
    this.socket.connect();
  }

  signedOut() {
    this.session = undefined;
    this.socket.disconnect();
    this.#become("offline");
    clearInterval(this.#offline);
    this.#offline = undefined;
  }

  /** Only when the socket no longer reconnects by itself may it be connected again. */
  #gaveUp() {
    this.#trying = false;
    this.#become("offline");
  }

  #become(status) {
    if (status === this.status) return;
    this.status = status;
    clearInterval(this.#offline);
    this.#offline = undefined;
    if (status === "offline" && this.session) this.#offline = setInterval(() => this.#pollOnce(), this.pollEvery);
    this.onStatus(status);
  }

  /** REST answers again, so the socket may connect again. */
  async #pollOnce() {
    await this.poll();
    if (this.#trying || this.status !== "offline" || !this.session) return;
    this.#trying = true;
    this.socket.connect();
  }

  close() {
    this.signedOut();
    this.socket.io.reconnection(false);
  }
}
