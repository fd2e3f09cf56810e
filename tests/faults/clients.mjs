// Clients of every protocol, each with a journal of what it saw: stock Socket.IO, /ws that rejoins with `since`, and SSE
// with Last-Event-ID. All reconnect by themselves.
import { eventOf } from "../harness/lines.mjs";
import http from "node:http";
import { tokenFor } from "../harness/token.mjs";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { Journal } from "./history.mjs";

/** The name of all events; the first argument is `{ n, volatile }`, `n` the event's number. */
export const EVENT = "n";
/** The configuration of the nodes: a dead connection is noticed after the sum of the two. */
export const PING = { ping_interval: "1s", ping_timeout: "1s" };
const LOOK_EVERY = 250;
const ACK_WITHIN = 2000;
const RETRY = { min: 20, max: 120 };

/** Stands for "no offset yet" where a join is answered. */
const FRESH = "fresh";

const retryAfter = () => RETRY.min + Math.random() * (RETRY.max - RETRY.min);

class Client {
  #timers = new Set();
  stopped = false;
  /** Whether it waits forever for data. */
  patient = false;
  /** When it connected and disconnected, in milliseconds. */
  connectedAt = [];
  disconnectedAt = [];

  /** `silence`: after so many milliseconds without data its connection is dead. */
  constructor(name, proxy, { user, rooms, scope, silence }) {
    this.journal = new Journal(name, { scope });
    Object.assign(this, { name, proxy, user, rooms, own: `user:${user}` });
    this.looks = Math.ceil(silence / LOOK_EVERY);
    this.received();
    this.watch = setInterval(() => this.#checkSilence(), LOOK_EVERY);
  }

  after(ms, what) {
    const timer = setTimeout(() => (this.#timers.delete(timer), this.stopped || what()), ms);
    this.#timers.add(timer);
  }

  received = () => (this.quiet = 0);

  // Looks are counted, not time: after a pause of this process there is data that it has not read yet.
  #checkSilence() {
    if (this.stopped || this.patient || ++this.quiet < this.looks) return;
    this.received();
    this.hangUp();
  }

  ended() {
    this.disconnectedAt.push(performance.now());
  }

  stop() {
    this.stopped = true;
    clearInterval(this.watch);
    for (const timer of this.#timers) clearTimeout(timer);
    this.close();
    this.proxy.close();
  }

  get notices() {
    return this.journal.notices;
  }
}

/** socket.io-client. Its rooms come from its token, or by `join` events where `asks`. */
export class IoClient extends Client {
  #in = new Set();
  connects = 0;

  constructor(name, proxy, { transports, asks = false, ...who }) {
    super(name, proxy, who);
    // The stock client has its own heartbeat.
    clearInterval(this.watch);
    this.asks = asks;
    const token = tokenFor(this.user, asks ? {} : { rooms: this.rooms });
    const reconnect = { reconnectionDelay: RETRY.min, reconnectionDelayMax: RETRY.max, randomizationFactor: 0.5 };
    this.socket = io(proxy.url, { forceNew: true, transports, auth: { token }, ...reconnect });
    this.socket.on("connect", () => this.#connected());
    this.socket.on("disconnect", (reason) => this.#disconnected(reason));
    this.socket.on("connect_error", (error) => (this.error = error));
    this.socket.onAny((_, { n }, ...more) => this.journal.event(n, more.at(-1)));
  }

  #connected() {
    this.connectedAt.push(performance.now());
    this.error = undefined;
    if (this.connects > 0 && this.socket.recovered) this.journal.note("recovered");
    else this.#begin();
    this.connects += 1;
  }

  #begin() {
    if (this.connects > 0) this.journal.notified("new session");
    this.#in.clear();
    const granted = this.asks ? [this.own] : [this.own, ...this.rooms];
    for (const room of granted) this.journal.in(room);
    if (this.asks) for (const room of this.rooms) this.#ask("join", room);
  }

  #disconnected(reason) {
    this.ended();
    this.reasons = [...(this.reasons ?? []), reason];
  }

  /** Repeats a request until it is acknowledged: an acknowledgement may be lost with its connection. */
  #ask(event, room, session = this.notices.length) {
    if (this.stopped) return;
    this.journal[event === "join" ? "asked" : "leaving"](room);
    this.#in.delete(room);
    this.socket.timeout(ACK_WITHIN).emit(event, room.slice("room:".length), (error, answer) => {
      // A new session makes its own requests.
      if (this.stopped || session !== this.notices.length) return;
      if (error || !answer?.ok) return this.after(retryAfter(), () => session === this.notices.length && this.#ask(event, room, session));
      this.journal[event === "join" ? "in" : "out"](room);
      if (event === "join") this.#in.add(room);
      else this.after(retryAfter(), () => session === this.notices.length && this.#ask("join", room, session));
    });
  }

  /** Leaves one of its rooms and joins it again. */
  churn(room) {
    if (this.asks && this.ready && this.#in.has(room)) this.#ask("leave", room);
  }

  get ready() {
    return this.socket.connected && (!this.asks || this.rooms.every((room) => this.#in.has(room)));
  }

  /** The state of its connection, for error messages. */
  get state() {
    const { connected, active } = this.socket;
    return `connected ${connected}, active ${active}, ${this.connects} connects, in ${[...this.#in]}, ${this.error?.message ?? ""} ${this.reasons?.slice(-3) ?? ""}`;
  }

  /** Closes the connection without ending the session. */
  hangUp() {
    this.socket.io.engine.close();
  }

  close() {
    this.socket.io.reconnection(false);
    this.socket.disconnect();
  }
}

/**
 * A plain WebSocket that remembers the offset of each room. Two things that a careful client of /ws does:
 * - Its automatic room is live before it can ask for what it missed there. It keeps early events until a ping is answered,
 *   which shows that the replay has arrived.
 * - An event to several rooms may be replayed in each of them. It drops an offset that it has seen in another room.
 */
export class WsClient extends Client {
  #since = new Map();
  #in = new Set();
  #early = [];
  #replayed = false;
  #seen = new Map();

  constructor(name, proxy, who) {
    super(name, proxy, { ...who, scope: "room" });
    this.token = tokenFor(this.user);
    this.#connect();
  }

  #connect() {
    this.received();
    const socket = new WebSocket(`${this.proxy.socketUrl}/ws?token=${this.token}`);
    this.socket = socket;
    let retry = retryAfter();
    socket.on("ping", this.received);
    socket.on("error", (error) => (this.error = error));
    socket.on("message", (data) => {
      if (socket !== this.socket) return;
      this.received();
      const message = JSON.parse(data.toString("utf8"));
      if (message.type === "closing") retry = message.retry_after_ms ?? retry;
      else this.#take(message);
    });
    socket.on("close", (code) => {
      if (socket !== this.socket) return;
      this.code = code;
      this.#in.clear();
      this.ended();
      this.after(retry, () => this.#connect());
    });
  }

  #take(message) {
    const { type, room } = message;
    if (type === "welcome") {
      this.connectedAt.push(performance.now());
      this.#early = [];
      this.#replayed = false;
      for (const room of [this.own, ...this.rooms]) this.#join(room);
      this.socket.send('{"type":"ping"}');
    } else if (type === "pong") {
      this.#replayed = true;
      for (const early of this.#early) this.#event(early);
    } else if (type === "joined") {
      this.#joined(message);
    } else if (type === "left") {
      const { socket } = this;
      this.journal.out(room);
      this.after(retryAfter(), () => socket === this.socket && socket.readyState === WebSocket.OPEN && this.#join(room));
    } else if (type === "event") {
      if (room === this.own && !this.#replayed && !this.#in.has(room)) this.#early.push(message);
      else this.#event(message);
    } else if (type === "gap") {
      this.journal.notified("gap", [room]);
      this.journal.in(room);
    } else if (type === "error") {
      this.journal.note("error", message);
      this.error = new Error(`${message.code}: ${message.message}`);
    }
  }

  #event({ room, offset, data, args }) {
    this.#since.set(room, offset);
    const { n, volatile } = data ?? args[0];
    // A volatile event has the offset of the event before it.
    if (!volatile) {
      const event = eventOf(offset);
      const elsewhere = this.#seen.get(event);
      this.#seen.set(event, room);
      if (elsewhere !== undefined && elsewhere !== room) return;
    }
    this.journal.event(n, offset, room);
  }

  #join(room) {
    const since = this.#since.get(room);
    this.journal.asked(room);
    this.socket.send(JSON.stringify({ type: "join", room, ...(since && { since }), id: since ?? FRESH }));
  }

  #joined({ room, offset, recovered, id }) {
    if (id === FRESH) this.journal.fresh([room]);
    else if (!recovered) this.journal.notified(recovered === false ? "recovered false" : "recovered missing", [room]);
    this.journal.in(room);
    if (offset) this.#since.set(room, offset);
    this.#in.add(room);
  }

  /** Leaves one of its rooms, forgets its offset there, and joins it again. */
  churn(room) {
    if (!this.ready) return;
    this.#in.delete(room);
    this.#since.delete(room);
    this.journal.leaving(room);
    this.socket.send(JSON.stringify({ type: "leave", room }));
  }

  get ready() {
    return this.socket.readyState === WebSocket.OPEN && [this.own, ...this.rooms].every((room) => this.#in.has(room));
  }

  get state() {
    return `readyState ${this.socket.readyState}, ${this.connectedAt.length} connections, in ${[...this.#in]}, last code ${this.code}, ${this.error?.message ?? ""}`;
  }

  /** Gives up a dead connection that nobody closed. */
  hangUp() {
    this.socket.terminate();
  }

  close() {
    this.socket.terminate();
  }
}

/** An EventSource that, unlike a browser's, notices a dead connection. */
export class SseClient extends Client {
  #id;
  #open = false;

  constructor(name, proxy, who) {
    super(name, proxy, who);
    const query = new URLSearchParams([...this.rooms.map((room) => ["room", room]), ["token", tokenFor(this.user)]]);
    this.url = `${proxy.url}/sse?${query}`;
    this.#connect();
  }

  #connect() {
    this.received();
    const headers = { accept: "text/event-stream", ...(this.#id && { "last-event-id": this.#id }) };
    const request = http.get(this.url, { headers, agent: false });
    this.request = request;
    let over = false;
    const end = () => {
      if (over || request !== this.request) return;
      over = true;
      this.#open = false;
      this.ended();
      this.after(retryAfter(), () => this.#connect());
    };
    request.on("error", (error) => (this.error = error, end()));
    request.on("close", end);
    request.on("response", (response) => this.#answered(request, response));
  }

  #answered(request, response) {
    if (request !== this.request) return;
    this.status = response.statusCode;
    if (response.statusCode !== 200) return response.resume();
    this.connectedAt.push(performance.now());
    this.#open = true;
    if (!this.#id) this.journal.fresh([this.own, ...this.rooms]);
    for (const room of [this.own, ...this.rooms]) this.journal.in(room);
    let rest = "";
    let block = {};
    response.setEncoding("utf8");
    response.on("error", () => {});
    response.on("data", (text) => {
      if (request !== this.request) return;
      this.received();
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      for (const line of lines) block = line === "" ? this.#dispatch(block) : this.#field(block, line);
    });
  }

  #field(block, line) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") return { ...block, data: block.data === undefined ? value : `${block.data}\n${value}` };
    return field === "" ? block : { ...block, [field]: value };
  }

  #dispatch({ id, event, data }) {
    if (id !== undefined) this.#id = id;
    if (data === undefined) return {};
    if (event === "gap") {
      this.journal.notified("gap", [this.own, ...this.rooms]);
      for (const room of [this.own, ...this.rooms]) this.journal.in(room);
    } else {
      const first = JSON.parse(data);
      this.journal.event((Array.isArray(first) ? first[0] : first).n, this.#id);
    }
    return {};
  }

  get ready() {
    return this.#open;
  }

  get state() {
    return `open ${this.#open}, ${this.connectedAt.length} connections, last status ${this.status}, ${this.error?.message ?? ""}`;
  }

  hangUp() {
    this.request.destroy();
  }

  close() {
    this.request.destroy();
  }
}
