// What every test here has: nodes, clients of all kinds through proxies that break, a load, and a verdict at the end.
import assert from "node:assert/strict";
import fs from "node:fs";
import { describe } from "node:test";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { FAULTS, faultsOf, inspectAll } from "./checker.mjs";
import { IoClient, PING, SseClient, WsClient } from "./clients.mjs";
import { HealthChecked, only } from "../harness/balancer.mjs";
import { Proxy } from "../harness/proxy.mjs";
import { chance, SECONDS, SEED } from "../harness/random.mjs";
import { History } from "./history.mjs";
import { HttpPublisher, Load, StreamPublisher } from "./load.mjs";

const ROOMS = Array.from({ length: 10 }, (_, index) => `room:r${index}`);
const ROOMS_OF_ONE = 3;
/** Milliseconds after the last fault within which every client is back and has everything. */
export const SETTLED_WITHIN = 40_000;
const TEST_TIMEOUT = 180_000 + SECONDS * 2000;

/** How many clients of each kind. */
export const MIXED = { websocket: 6, polling: 3, upgrade: 4, ws: 6, sse: 4 };

/** The configuration where nobody may be disconnected: no pause of a busy machine is as long as this heartbeat. */
export const STEADY = { socketio: { ping_interval: "1s", ping_timeout: "5s" } };

/** The same where Redis does not fail either: no pause is as long as the timeout of a command. */
export const CALM = { ...STEADY, timeout: "4s" };

const TRANSPORTS = { websocket: ["websocket"], polling: ["polling"], upgrade: ["polling", "websocket"] };

/** One test with its stage. The seed of its random numbers is in its name. */
export function faultTest(name, body) {
  describe(name, () => {
    scenario(`${name} (FAULT_SEED=${SEED})`, async (tools) => {
      const stage = new Stage(name, tools);
      try {
        await body(stage);
      } catch (error) {
        stage.dump();
        throw error;
      } finally {
        await stage.end();
      }
    }, { timeout: TEST_TIMEOUT });
  });
}

export class Stage {
  history = new History();
  clients = [];
  nodes = [];
  #begun = performance.now();

  constructor(name, tools) {
    Object.assign(this, { name, tools, random: chance(name) });
  }

  /** Nodes of one cluster on this Redis (`{ url }`), behind one balancer. `timeout` is that of `redis`: short where Redis fails. */
  async start(count, { redis, url = redis?.url, timeout = "500ms", ...config } = {}) {
    this.redis = redis;
    this.config = { ...(url && { redis: { url, timeout } }), socketio: PING, ...config };
    this.nodes = await Promise.all(Array.from({ length: count }, () => this.tools.node(this.config)));
    this.balancer = new HealthChecked(this.nodes);
    /** A proxy to the balancer for publishers. */
    this.balancer.proxy = this.tools.keep(await new Proxy(this.balancer).open());
    return this;
  }

  /** Starts a node with the same configuration but for `url`; `old` is the stopped node that it replaces. */
  async join(old, { url } = {}) {
    const config = url ? { ...this.config, redis: { ...this.config.redis, url } } : this.config;
    const node = await this.tools.node(config, { port: old?.port });
    this.nodes = old ? this.nodes.map((one) => (one === old ? node : one)) : [...this.nodes, node];
    this.balancer.replace(old, node);
    return node;
  }

  /** A route that assigns each client to one node. */
  sticky = (_, index) => only(this.nodes[index % this.nodes.length]);

  /** Starts clients of each kind, each with its own proxy, and waits until they are in. `route` answers a proxy's balancer. */
  async populate(counts = MIXED, { route = () => this.balancer } = {}) {
    for (const [kind, count] of Object.entries(counts)) {
      for (let index = 0; index < count; index += 1) await this.#addClient(kind, index, route);
    }
    await this.allReady();
    return this;
  }

  async #addClient(kind, index, route) {
    const serial = this.clients.length;
    const rooms = Array.from({ length: ROOMS_OF_ONE }, (_, step) => ROOMS[(serial * 3 + step * (1 + (serial % 3))) % ROOMS.length]);
    const proxy = await new Proxy(route(kind, index)).open();
    // A ping comes every second. A client waits as long as a node does.
    const silence = 500 + 1000 * [this.config.socketio.ping_interval, this.config.socketio.ping_timeout].reduce((sum, time) => sum + Number.parseInt(time, 10), 0);
    const who = { user: `u${serial}`, rooms, silence };
    const name = `${kind} ${index}`;
    if (kind === "crowd") this.clients.push(new WsClient(name, proxy, { ...who, rooms: [] }));
    else if (kind === "ws") this.clients.push(new WsClient(name, proxy, who));
    else if (kind === "sse") this.clients.push(new SseClient(name, proxy, who));
    else this.clients.push(new IoClient(name, proxy, { ...who, transports: TRANSPORTS[kind], asks: index % 2 === 1 }));
  }

  of = (...kinds) => this.clients.filter(({ name }) => kinds.includes(name.split(" ")[0]));
  get socketio() {
    return this.clients.filter((client) => client instanceof IoClient);
  }

  allReady = () =>
    until(() => this.clients.every(({ ready }) => ready), () =>
      `all clients in; not: ${this.clients.filter(({ ready }) => !ready).map(({ name, state }) => `${name} (${state})`).join("; ")}`, SETTLED_WITHIN);

  /**
   * The load: over HTTP to each target, and by XADD to `streams` (a port, or an
   * ioredis client), with and without ids; `bytes` make each event as large.
   */
  async publish({ targets = this.nodes, streams = this.redis ? [this.redis.port, this.redis.port] : [], rate, bytes } = {}) {
    const users = this.clients.filter(({ rooms }) => rooms.length > 0).map(({ user }) => user);
    this.load = new Load(this.history, { rooms: ROOMS, users, random: this.random, rate, bytes });
    targets.forEach((target, index) => this.load.add(`http-${index}`, new HttpPublisher(target), { ids: index % 2 === 1 }));
    streams.forEach((stream, index) => {
      const publisher = typeof stream === "number" ? StreamPublisher.to(stream) : new StreamPublisher(stream);
      this.load.add(`xadd-${index}`, publisher, { ids: index % 2 === 1 });
    });
    await this.load.start();
    await this.flowing();
  }

  /** Waits until this many more events have been accepted. */
  async flowing(more = 40) {
    const goal = this.history.count("accepted") + more;
    await until(() => this.history.count("accepted") >= goal, `${more} more events accepted`, SETTLED_WITHIN);
  }

  /** Repeats something for some seconds. */
  async during(seconds, what) {
    const end = performance.now() + seconds * 1000;
    await until(async () => (await what?.(), performance.now() > end), "the end", seconds * 1000 + SETTLED_WITHIN);
  }

  /** Ends the load, waits until every client is back and has the last event of each of its rooms, and inspects all journals. */
  async verdict({ through = this.nodes.find(({ exit }) => !exit) } = {}) {
    await this.load.stop();
    for (const node of this.nodes.filter(({ exit }) => !exit)) await until(() => node.answers("/health"), "every node ready", SETTLED_WITHIN);
    await this.allReady();
    let last = await this.#publishLast(through);
    let notices = this.#notices();
    const arrived = async () => {
      if (this.#missing(last).length === 0) return true;
      if (this.#notices() > notices) {
        // A node has only now found out that the log lost entries: its clients were notified instead of getting the last
        // events, so they are due another.
        await this.allReady();
        notices = this.#notices();
        last = await this.#publishLast(through);
      }
      return false;
    };
    await until(arrived, () => `the last events; missing: ${this.#missing(last).join("; ")}\n${this.#faults([...FAULTS, "excused"])}`, SETTLED_WITHIN);
    this.reports = inspectAll(this.history, this.clients.map(({ journal }) => journal));
    const fault = faultsOf(this.reports, FAULTS);
    assert.equal(fault, "", `\n${fault}\n`);
    this.#say();
    return this;
  }

  async #publishLast(through) {
    const publisher = new HttpPublisher(through);
    const last = new Map();
    for (const room of ROOMS) {
      const event = this.history.add({ by: "last", rooms: [room] });
      await until(async () => {
        this.history.trying(event);
        const { status, offset } = await publisher.attempt(event, `last-${room}-${event.n}`);
        if (status === 200) this.history.accepted(event, offset);
        return status === 200;
      }, `the last event of ${room} accepted`, SETTLED_WITHIN);
      last.set(room, event.n);
    }
    publisher.close();
    return last;
  }

  #notices = () => this.clients.reduce((sum, client) => sum + client.notices.length, 0);

  #missing = (last) =>
    this.clients.flatMap((client) => client.rooms.filter((room) => !client.journal.has(last.get(room))).map((room) => `${client.name} ${room} (${client.state})`));

  #faults = (kinds) => faultsOf(inspectAll(this.history, this.clients.map(({ journal }) => journal)), kinds);

  /** Fails if a connection ended. */
  assertNobodyDisconnected(clients = this.clients) {
    assert.deepEqual(clients.filter(({ disconnectedAt }) => disconnectedAt.length > 0).map(({ name, state }) => `${name}: ${state}`), [], "disconnected");
  }

  /** Fails if a client was notified of a gap; that nothing is missing without notice is part of the verdict. */
  async assertNothingLost() {
    const notified = this.clients.filter(({ notices }) => notices.length > 0);
    if (notified.length === 0) return;
    const each = notified.map(({ name, notices, state }) => `  ${name}: ${notices.map(({ how, ms }) => `${how} at ${Math.round(ms)} ms`)}; ${state}`);
    const why = await Promise.all(this.nodes.map(async (node) => `  ${node.port}: ${(await node.get("/metrics")).text.match(/^roomcast_recoveries_total.* [1-9].*$/gm)}`));
    assert.fail(`notified that something may be missing:\n${[...each, ...why].join("\n")}\n${faultsOf(this.reports, ["excused"])}`);
  }

  #say() {
    const sum = (of) => this.reports.reduce((total, report) => total + of(report), 0);
    const back = this.clients.reduce((total, { connectedAt }) => total + connectedAt.length - 1, 0);
    const statuses = [...this.load.statuses].map(([status, count]) => `${status}: ${count}`).join(", ");
    console.log(
      `# ${this.name}: ${this.history.events.length} events (${statuses}), ${sum(({ delivered }) => delivered)} deliveries, ${back} reconnections, ` +
        `${sum(({ notices }) => notices)} notices, ${sum(({ excused }) => excused.length)} missing with notice, ${Math.round((performance.now() - this.#begun) / 100) / 10} s`,
    );
  }

  /** Writes all facts to a file, to look for the cause of a failure: FAULT_DUMP=/tmp/facts.json. */
  dump() {
    if (!process.env.FAULT_DUMP) return;
    const journals = this.clients.map(({ journal: { name, facts } }) => ({ name, facts }));
    const text = (_, value) => (typeof value === "bigint" ? String(value) : value);
    fs.writeFileSync(process.env.FAULT_DUMP, JSON.stringify({ events: this.history.events, journals }, text));
  }

  /** Closes a server after the nodes. */
  closeLast(server) {
    this.tools.serve(server);
  }

  async end() {
    await this.load?.stop();
    for (const client of this.clients) client.stop();
    this.balancer?.close();
  }
}
