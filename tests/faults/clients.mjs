// The clients that people use, each with a journal of what it saw: stock Socket.IO, /ws that rejoins with `since`, and
// SSE with Last-Event-ID. All come back by themselves.
import http from "node:http";
import { tokenFor } from "../harness/token.mjs";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { Journal } from "./ledger.mjs";

/** The name of all events; the first argument is `{ n, volatile }`, `n` the event's number. */
export const EVENT = "n";
/** What nodes are configured with: a dead line is noticed after the two together. */
export const PING = { ping_interval: "1s", ping_timeout: "1s" };
/** A client hears a ping every second; a silence of this many milliseconds is a dead line. */
const SILENCE = 2500;
const LOOK_EVERY = 250;
const ACK_WITHIN = 2000;
const RETRY = { least: 20, most: 120 };

/** Stands for "no offset yet" where a join is answered. */
const FRESH = "fresh";

const retryAfter = () => RETRY.least + Math.random() * (RETRY.most - RETRY.least);

class Client {
  #timers = new Set();
  stopped = false;
  /** Whether it bears any silence. */
  patient = false;
  /** When its connections began and ended, in milliseconds. */
  begins = [];
  ends = [];

  constructor(name, line, { user, rooms, scope }) {
    this.journal = new Journal(name, { scope });
    Object.assign(this, { name, line, user, rooms, own: `user:${user}` });
    this.heard = performance.now();
    this.watch = setInterval(() => this.#checkSilence(), LOOK_EVERY);
  }

  after(ms, what) {
    const timer = setTimeout(() => (this.#timers.delete(timer), this.stopped || what()), ms);
    this.#timers.add(timer);
  }

  hear = () => (this.heard = performance.now());

  #checkSilence() {
    if (this.stopped || this.patient || performance.now() - this.heard < SILENCE) return;
    this.hear();
    this.hangUp();
  }

  ended() {
    this.ends.push(performance.now());
  }

  stop() {
    this.stopped = true;
    clearInterval(this.watch);
    for (const timer of this.#timers) clearTimeout(timer);
    this.close();
    this.line.close();
  }

  get tellings() {
    return this.journal.tellings;
  }
}

/** socket.io-client. Its rooms come from its token, or by `join` events where `asks`. */
export class IoClient extends Client {
  #in = new Set();
  connects = 0;

  constructor(name, line, { transports, asks = false, ...who }) {
    super(name, line, who);
    // It has a heartbeat of its own.
    clearInterval(this.watch);
    this.asks = asks;
    const token = tokenFor(this.user, asks ? {} : { rooms: this.rooms });
    const reconnect = { reconnectionDelay: RETRY.least, reconnectionDelayMax: RETRY.most, randomizationFactor: 0.5 };
    this.socket = io(line.url, { forceNew: true, transports, auth: { token }, ...reconnect });
    this.socket.on("connect", () => this.#connected());
    this.socket.on("disconnect", (reason) => this.#disconnected(reason));
    this.socket.on("connect_error", (error) => (this.error = error));
    this.socket.onAny((_, { n }, ...more) => this.journal.event(n, more.at(-1)));
  }

  #connected() {
    this.begins.push(performance.now());
    this.error = undefined;
    if (this.connects > 0 && this.socket.recovered) this.journal.note("recovered");
    else this.#begin();
    this.connects += 1;
  }

  #begin() {
    if (this.connects > 0) this.journal.told("new session");
    this.#in.clear();
    const granted = this.asks ? [this.own] : [this.own, ...this.rooms];
    for (const room of granted) this.journal.in(room);
    if (this.asks) for (const room of this.rooms) this.#ask("join", room);
  }

  #disconnected(reason) {
    this.ended();
    this.reasons = [...(this.reasons ?? []), reason];
  }

  /** Asks until it is answered: an acknowledgement may be lost with its connection. */
  #ask(event, room, session = this.tellings.length) {
    if (this.stopped) return;
    this.journal[event === "join" ? "asked" : "leaving"](room);
    this.#in.delete(room);
    this.socket.timeout(ACK_WITHIN).emit(event, room.slice("room:".length), (error, answer) => {
      // A new session has asked for itself.
      if (this.stopped || session !== this.tellings.length) return;
      if (error || !answer?.ok) return this.after(retryAfter(), () => session === this.tellings.length && this.#ask(event, room, session));
      this.journal[event === "join" ? "in" : "out"](room);
      if (event === "join") this.#in.add(room);
      else this.after(retryAfter(), () => session === this.tellings.length && this.#ask("join", room, session));
    });
  }

  /** Leaves one of its rooms and joins it again. */
  churn(room) {
    if (this.asks && this.ready && this.#in.has(room)) this.#ask("leave", room);
  }

  get ready() {
    return this.socket.connected && (!this.asks || this.rooms.every((room) => this.#in.has(room)));
  }

  /** The state of its connection, for a message of what went wrong. */
  get state() {
    const { connected, active } = this.socket;
    return `connected ${connected}, active ${active}, ${this.connects} connects, in ${[...this.#in]}, ${this.error?.message ?? ""} ${this.reasons?.slice(-3) ?? ""}`;
  }

  /** Ends the connection without a word to the session. */
  hangUp() {
    this.socket.io.engine.close();
  }

  close() {
    this.socket.io.reconnection(false);
    this.socket.disconnect();
  }
}

/**
 * A plain WebSocket that remembers the offset of each room. Two things a careful client of /ws does:
 * - its automatic room is live before it could ask for what it missed there, so it holds what comes early until that is
 *   there, for which it asks by a ping;
 * - an event to several rooms may be replayed in each of them, so it drops an offset that it has seen in another room.
 */
export class WsClient extends Client {
  #since = new Map();
  #in = new Set();
  #early = [];
  #caughtUp = false;
  #seen = new Map();

  constructor(name, line, who) {
    super(name, line, { ...who, scope: "room" });
    this.token = tokenFor(this.user);
    this.#connect();
  }

  #connect() {
    this.hear();
    const socket = new WebSocket(`${this.line.socketUrl}/ws?token=${this.token}`);
    this.socket = socket;
    let retry = retryAfter();
    socket.on("ping", this.hear);
    socket.on("error", (error) => (this.error = error));
    socket.on("message", (data) => {
      if (socket !== this.socket) return;
      this.hear();
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
      this.begins.push(performance.now());
      this.#early = [];
      this.#caughtUp = false;
      for (const room of [this.own, ...this.rooms]) this.#join(room);
      this.socket.send('{"type":"ping"}');
    } else if (type === "pong") {
      this.#caughtUp = true;
      for (const early of this.#early) this.#event(early);
    } else if (type === "joined") {
      this.#joined(message);
    } else if (type === "left") {
      const { socket } = this;
      this.journal.out(room);
      this.after(retryAfter(), () => socket === this.socket && socket.readyState === WebSocket.OPEN && this.#join(room));
    } else if (type === "event") {
      if (room === this.own && !this.#caughtUp && !this.#in.has(room)) this.#early.push(message);
      else this.#event(message);
    } else if (type === "gap") {
      this.journal.told("gap", [room]);
      this.journal.in(room);
    } else if (type === "error") {
      this.journal.note("error", message);
      this.error = new Error(`${message.code}: ${message.message}`);
    }
  }

  #event({ room, offset, data, args }) {
    this.#since.set(room, offset);
    const { n, volatile } = data ?? args[0];
    // A volatile event has the place of the event before it.
    if (!volatile) {
      const elsewhere = this.#seen.get(offset);
      this.#seen.set(offset, room);
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
    else if (!recovered) this.journal.told(recovered === false ? "recovered false" : "recovered missing", [room]);
    this.journal.in(room);
    if (offset) this.#since.set(room, offset);
    this.#in.add(room);
  }

  /** Leaves one of its rooms, forgets its place there, and joins it again. */
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
    return `readyState ${this.socket.readyState}, ${this.begins.length} connections, in ${[...this.#in]}, last code ${this.code}, ${this.error?.message ?? ""}`;
  }

  /** The line is dead, though nobody said so. */
  hangUp() {
    this.socket.terminate();
  }

  close() {
    this.socket.terminate();
  }
}

/** What an EventSource does, and what a browser's does not: it notices a dead line. */
export class SseClient extends Client {
  #id;
  #open = false;

  constructor(name, line, who) {
    super(name, line, who);
    const query = new URLSearchParams([...this.rooms.map((room) => ["room", room]), ["token", tokenFor(this.user)]]);
    this.url = `${line.url}/sse?${query}`;
    this.#connect();
  }

  #connect() {
    this.hear();
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
    this.begins.push(performance.now());
    this.#open = true;
    if (!this.#id) this.journal.fresh([this.own, ...this.rooms]);
    for (const room of [this.own, ...this.rooms]) this.journal.in(room);
    let rest = "";
    let block = {};
    response.setEncoding("utf8");
    response.on("error", () => {});
    response.on("data", (text) => {
      if (request !== this.request) return;
      this.hear();
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
      this.journal.told("gap", [this.own, ...this.rooms]);
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
    return `open ${this.#open}, ${this.begins.length} connections, last status ${this.status}, ${this.error?.message ?? ""}`;
  }

  hangUp() {
    this.request.destroy();
  }

  close() {
    this.request.destroy();
  }
}
