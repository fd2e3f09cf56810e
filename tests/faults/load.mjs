// A steady load of events over HTTP and XADD, each noted in the history before it is sent.
import http from "node:http";
import { Redis } from "ioredis";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { EVENT } from "./clients.mjs";

const ANSWER_WITHIN = 5000;
const RETRY_AFTER = 50;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** The arguments of an event. Half of the stored and all of the volatile ones end in a text, which must not be taken for an offset. */
const args = ({ n, volatile, bytes }) => [{ n, volatile, ...(bytes && { filling: "x".repeat(bytes) }) }, ...(volatile || n % 2 ? ["a text at the end"] : [])];

/** Publishes to a node or a proxy: anything with a `url`, which may change. */
export class HttpPublisher {
  agent = new http.Agent({ keepAlive: true });

  constructor(target) {
    this.target = target;
  }

  /** `{ status, offset }`; no status where no answer came. */
  attempt(event, id) {
    const { rooms, except, volatile } = event;
    const body = JSON.stringify({
      ...(rooms.length === 1 ? { room: rooms[0] } : { rooms }), event: EVENT, args: args(event),
      ...(except.length && { except }), ...(volatile && { volatile }), ...(id && { id }),
    });
    const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body), authorization: `Bearer ${KEY}` };
    return new Promise((resolve) => {
      const lost = (error) => resolve({ error });
      const request = http.request(`${this.target.url}/publish`, { method: "POST", headers, agent: this.agent, timeout: ANSWER_WITHIN }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (more) => (text += more)).on("error", lost).on("end", () => {
          resolve({ status: response.statusCode, text, offset: response.statusCode === 200 ? JSON.parse(text).offset : undefined });
        });
      });
      request.on("timeout", () => request.destroy(new Error("no answer")));
      request.on("error", lost);
      request.end(body);
    });
  }

  close() {
    this.agent.destroy();
  }
}

/** Options of ioredis: a command without an answer is not sent again, since that might add a second entry. */
export const ONCE = {
  maxRetriesPerRequest: 0, enableOfflineQueue: false, autoResendUnfulfilledCommands: false, autoResubscribe: false,
  commandTimeout: 1000, retryStrategy: () => RETRY_AFTER,
};

/** Adds to the stream, as a backend does that does not use roomcast's HTTP. */
export class StreamPublisher {
  constructor(redis, stream = "roomcast:events") {
    Object.assign(this, { redis, stream });
    redis.on("error", () => {});
  }

  static to(port) {
    return new StreamPublisher(new Redis({ port, host: "127.0.0.1", ...ONCE }));
  }

  /** Waits for its first connection. */
  ready = () => until(() => this.redis.status === "ready", "a connection to Redis");

  async attempt(event, id) {
    const { rooms, except, volatile } = event;
    const fields = [...(rooms.length === 1 ? ["room", rooms[0]] : ["rooms", JSON.stringify(rooms)]), "event", EVENT, "args", JSON.stringify(args(event))];
    if (except.length) fields.push("except", JSON.stringify(except));
    if (volatile) fields.push("volatile", "true");
    if (id) fields.push("id", id);
    try {
      return { status: 200, offset: await this.redis.xadd(this.stream, "*", ...fields) };
    } catch (error) {
      return { status: 503, error };
    }
  }

  close() {
    this.redis.disconnect();
  }
}

/** Publishers that each send one event at a time, `rate` events a second in total. */
export class Load {
  #running = false;
  #loops = [];
  #publishers = [];
  statuses = new Map();

  constructor(history, { rooms, users, random, rate = 120, bytes }) {
    Object.assign(this, { history, rooms, users, random, rate, bytes });
  }

  /** `ids`: events have an idempotency id, and are tried again until they are answered 200. */
  add(name, publisher, { ids = false } = {}) {
    this.#publishers.push({ name, publisher, ids });
    return this;
  }

  async start() {
    await Promise.all(this.#publishers.map(({ publisher }) => publisher.ready?.()));
    this.#running = true;
    this.#loops = this.#publishers.map((one) => this.#loop(one));
  }

  /** Waits for the last answers; nothing is published after it. */
  async stop() {
    this.#running = false;
    await Promise.all(this.#loops);
    for (const { publisher } of this.#publishers) publisher.close();
  }

  async #loop(one) {
    const every = (1000 * this.#publishers.length) / this.rate;
    while (this.#running) {
      const begun = performance.now();
      await this.#publish(one, this.history.add({ by: one.name, bytes: this.bytes, ...this.#audience() }));
      await pause(Math.max(0, every * this.random.between(0.5, 1.5) - (performance.now() - begun)));
    }
  }

  #audience() {
    const { random } = this;
    const dice = random.next();
    if (dice < 0.1) return { rooms: [random.pick(this.rooms)], volatile: true };
    if (dice < 0.2) return { rooms: [`user:${random.pick(this.users)}`] };
    if (dice < 0.3) return { rooms: [random.pick(this.rooms)], except: [`user:${random.pick(this.users)}`] };
    if (dice < 0.4) return { rooms: [random.pick(this.rooms), random.pick(this.rooms)] };
    return { rooms: [random.pick(this.rooms)] };
  }

  async #publish({ publisher, ids, name }, event) {
    const id = ids && !event.volatile ? `${name}-${event.n}` : undefined;
    for (;;) {
      this.history.trying(event);
      const { status, offset, error, text } = await publisher.attempt(event, id);
      const label = `${name.split("-")[0]} ${status ?? "lost"}`;
      this.statuses.set(label, (this.statuses.get(label) ?? 0) + 1);
      if (status === 200) return this.history.accepted(event, offset);
      if (status !== undefined && status !== 503) throw new Error(`${name}: ${status} ${text ?? error}`);
      this.history.unknown(event);
      await pause(RETRY_AFTER);
      if (!id || !this.#running) return;
    }
  }
}
