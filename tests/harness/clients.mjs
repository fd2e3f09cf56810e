// The usual clients of each protocol; each records what it receives.
import assert from "node:assert/strict";
import { EventSource } from "eventsource";
import { io } from "socket.io-client";
import WebSocket from "ws";
import { until, within } from "./deadline.mjs";
import { authorityOf, moduleFor } from "./http.mjs";

const query = (parts) => new URLSearchParams(parts).toString();
const shown = (value) => JSON.stringify(value).slice(0, 2000);

class IoClient {
  events = [];
  errors = [];
  disconnects = [];
  connects = 0;
  transports = [];

  constructor(socket) {
    this.socket = socket;
    this.socket.on("connect", () => (this.connects += 1));
    this.socket.on("connect_error", (error) => this.errors.push(error));
    this.socket.on("disconnect", (reason) => this.disconnects.push(reason));
    this.socket.onAny((name, ...args) => this.events.push(this.#withoutOffset(name, args)));
  }

  // With recovery, the server appends an offset to every event, which the stock client recognizes in the same way.
  #withoutOffset(name, args) {
    const resumable = this.socket._pid !== undefined && typeof args.at(-1) === "string";
    return resumable ? { name, args: args.slice(0, -1), offset: args.at(-1) } : { name, args };
  }

  /** Resolves with this once connected; fails at once if it is refused. */
  async connected() {
    await until(() => {
      const refusal = this.errors[0];
      if (refusal && !this.socket.active) throw new Error(`refused: ${refusal.message}`);
      return this.socket.connected;
    }, () => `connected; errors: ${this.errors.map((error) => error.message)}`);
    return this;
  }

  /** The error of a refused connection. */
  refused = () => until(() => this.errors[0], () => `a connect_error; connected: ${this.socket.connected}`);
  /** The reason of the first disconnection. */
  disconnected = () => until(() => this.disconnects[0], "a disconnect");
  transport = () => this.socket.io.engine.transport.name;

  /** Emits and resolves with the acknowledgement's arguments. */
  ask(event, ...args) {
    const answered = new Promise((resolve) => this.socket.emit(event, ...args, (...answer) => resolve(answer)));
    return within(answered, `the acknowledgement of ${event}`);
  }

  /** Joins rooms with the usual rule, which expects the part after `room:`. */
  async join(...rooms) {
    for (const room of rooms) assert.deepEqual(await this.ask("join", room.slice("room:".length)), [{ ok: true }], `join ${room}`);
    return this;
  }

  /** The arguments of the first event of this name. */
  async event(name) {
    const found = await until(
      () => this.events.find((event) => event.name === name),
      () => `event ${name}; got ${shown(this.events)}`,
    );
    return found.args;
  }

  /** All events of this name so far: their arguments. */
  argsOf = (name) => this.events.filter((event) => event.name === name).map((event) => event.args);

  close() {
    this.socket.io.reconnection(false);
    this.socket.disconnect();
  }

  /** Ends a connection that is still closing when no server is left, or it would keep the process alive for up to 45 s. */
  abandon() {
    const { engine } = this.socket.io;
    if (engine && engine.readyState !== "closed") engine.transport.onClose();
  }
}

/** socket.io-client; `token` goes into `auth.token`, the rest are the client's own options. */
export function connectIo(node, { token, namespace = "/", auth = token && { token }, ...options } = {}) {
  const fast = { reconnectionDelay: 50, reconnectionDelayMax: 500 };
  return new IoClient(io(node.url + namespace, { forceNew: true, auth, ca: authorityOf(node.url), ...fast, ...options }));
}

/** Records what an existing socket receives. */
export const watchIo = (socket) => new IoClient(socket);

class WsClient {
  texts = [];
  messages = [];

  constructor(url, protocols, options) {
    this.socket = new WebSocket(url, protocols, options);
    this.socket.on("message", (data) => {
      const text = data.toString("utf8");
      this.texts.push(text);
      this.messages.push(JSON.parse(text));
    });
    this.socket.on("close", (code, reason) => (this.end ??= { code, reason: reason.toString() }));
    this.socket.on("unexpected-response", (_, response) => {
      this.end = { status: response.statusCode };
      this.socket.terminate();
    });
    this.socket.on("error", (error) => (this.error = error));
  }

  send(message) {
    this.socket.send(typeof message === "string" ? message : JSON.stringify(message));
  }

  /** The first message of this type, or that the predicate matches. */
  message(wanted) {
    const matches = typeof wanted === "string" ? (message) => message.type === wanted : wanted;
    return until(
      () => this.messages.find(matches) ?? (this.end && Promise.reject(new Error(`ended: ${shown(this.end)}`))),
      () => `message ${wanted}; got ${shown(this.messages)}`,
    );
  }

  welcomed = async () => (await this.message("welcome"), this);
  /** `{ code, reason }` of a close, or `{ status }` of a refused handshake. */
  ended = () => until(() => this.end, () => `a close; got ${shown(this.messages)}`);
  eventsOf = (name) => this.messages.filter((message) => message.type === "event" && message.event === name);
  event = (name) => this.message((message) => message.type === "event" && message.event === name);

  /** Sends with an id and resolves with the message that has the same id. */
  async ask(message) {
    const id = `ask-${(this.asked = (this.asked ?? 0) + 1)}`;
    if (this.socket.readyState === WebSocket.CONNECTING) await this.welcomed();
    this.send({ ...message, id });
    return this.message((answer) => answer.id === id);
  }

  async join(...rooms) {
    for (const room of rooms) assert.equal((await this.ask({ type: "join", room })).type, "joined", `join ${room}`);
    return this;
  }

  close() {
    this.socket.terminate();
  }
}

/** A plain WebSocket on /ws; `token` is sent in the query. */
export function connectWs(node, { token, protocols, path = "/ws", ...options } = {}) {
  return new WsClient(`${node.socketUrl}${path}${token ? `?${query({ token })}` : ""}`, protocols, { ca: authorityOf(node.socketUrl), ...options });
}

const sseUrl = (node, { token, rooms = [], query: more = {} }) =>
  `${node.url}/sse?${query([...rooms.map((room) => ["room", room]), ...(token ? [["token", token]] : []), ...Object.entries(more)])}`;

/** A raw reader of /sse, which shows what an EventSource hides: ids, comments, status, raw data. */
class SseClient {
  events = [];
  #open = {};
  #rest = "";

  constructor(url, headers) {
    const options = { headers: { accept: "text/event-stream", ...headers }, agent: false, ca: authorityOf(url) };
    this.request = moduleFor(url).get(url, options, (response) => {
      this.status = response.statusCode;
      this.headers = response.headers;
      this.body = "";
      response.setEncoding("utf8");
      response.on("data", (text) => (this.body += text, this.#take(text)));
      response.on("close", () => (this.ended = true));
      response.on("error", () => (this.ended = true));
    });
    this.request.on("error", (error) => (this.error = error));
  }

  #take(text) {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  #line(line) {
    if (line === "") {
      if (this.#open.data !== undefined) this.events.push({ name: "message", ...this.#open });
      this.#open = {};
    } else if (!line.startsWith(":")) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "data") this.#open.data = this.#open.data === undefined ? value : `${this.#open.data}\n${value}`;
      if (field === "event") this.#open.name = value;
      if (field === "id") this.#open.id = value;
    }
  }

  /** Resolves with this once the answer's head has arrived. */
  answered = async () => (await until(() => this.status, () => `an answer; ${this.error ?? ""}`), this);
  event = (name) =>
    until(() => this.events.find((event) => event.name === name), () => `SSE ${name}; got ${shown(this.events)}`);
  eventsOf = (name) => this.events.filter((event) => event.name === name);

  close() {
    this.request.destroy();
  }
}

/** A raw reader of /sse. */
export const connectSse = (node, { headers, ...where } = {}) => new SseClient(sseUrl(node, where), headers);

class EventSourceClient {
  events = [];
  errors = [];

  constructor(url, names) {
    this.source = new EventSource(url);
    this.source.addEventListener("error", (error) => this.errors.push(error));
    for (const name of names) {
      this.source.addEventListener(name, ({ data, lastEventId }) => this.events.push({ name, data, lastEventId }));
    }
  }

  opened = async () => (await until(() => this.source.readyState === EventSource.OPEN, "EventSource open"), this);
  event = (name) => until(() => this.events.find((event) => event.name === name), `EventSource event ${name}`);

  close() {
    this.source.close();
  }
}

/** The `eventsource` package listening for these event names. */
export const connectEventSource = (node, { names, ...where }) => new EventSourceClient(sseUrl(node, where), names);
