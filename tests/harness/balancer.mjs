// A load balancer without stickiness, and the line of one client to it, which a test breaks in all the usual ways.
import net from "node:net";
import { Transform } from "node:stream";
import { request } from "./http.mjs";

const CHECK_EVERY = 100;

/** Spreads connections over backends, in turn, and leaves out those whose /health is not 200, as balancers do. */
export class Balancer {
  #turn = 0;

  constructor(backends) {
    this.backends = backends;
    this.healthy = new Set(backends);
    this.timer = setInterval(() => this.#check(), CHECK_EVERY);
  }

  async #check() {
    for (const backend of this.backends) {
      const answer = await request(`${backend.url}/health`).catch(() => undefined);
      if (answer?.status === 200) this.healthy.add(backend);
      else this.healthy.delete(backend);
    }
  }

  /** Whom to try, the first choice first. */
  order() {
    const turn = (this.#turn += 1);
    const rotated = this.backends.map((_, index) => this.backends[(index + turn) % this.backends.length]);
    return [...rotated.filter((one) => this.healthy.has(one)), ...rotated.filter((one) => !this.healthy.has(one))];
  }

  /** `fresh` takes the place of `old`, which may be nobody. */
  replace(old, fresh) {
    this.backends = [...this.backends.filter((one) => one !== old), fresh];
    this.healthy.delete(old);
  }

  close() {
    clearInterval(this.timer);
  }
}

/** Always the same backend. */
export const only = (backend) => ({ order: () => [backend], close() {} });

const slowly = (ms) =>
  new Transform({ transform: (chunk, _, done) => setTimeout(() => done(null, chunk), ms) });

/** A TCP proxy. `up = false` refuses, `deaf` accepts and passes nothing on; both for connections to come. */
export class Line {
  up = true;
  deaf = false;
  delay = 0;
  accepted = 0;
  #pairs = new Set();

  constructor(balancer) {
    this.balancer = balancer;
    this.server = net.createServer({ pauseOnConnect: true }, (client) => this.#serve(client));
    this.server.on("error", () => {});
  }

  async open() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    this.url = `http://127.0.0.1:${this.port}`;
    this.socketUrl = `ws://127.0.0.1:${this.port}`;
    return this;
  }

  #serve(client) {
    this.accepted += 1;
    client.on("error", () => {});
    if (!this.up) return client.resetAndDestroy();
    const pair = { sockets: [client], streams: [] };
    this.#pairs.add(pair);
    client.once("close", () => this.#end(pair));
    if (!this.deaf) this.#dial(pair, this.balancer.order());
  }

  #dial(pair, [backend, ...others]) {
    const [client] = pair.sockets;
    if (!backend) return this.#end(pair);
    const upstream = net.connect(backend.port, "127.0.0.1");
    upstream.once("error", () => !pair.backend && !client.destroyed && this.#dial(pair, others));
    upstream.once("connect", () => {
      upstream.on("error", () => {});
      if (client.destroyed) return upstream.destroy();
      pair.backend = backend;
      pair.sockets.push(upstream);
      upstream.once("close", () => this.#end(pair));
      this.#join(pair, client, upstream);
      this.#join(pair, upstream, client);
      if (pair.frozen) this.#pause(pair);
    });
  }

  #join(pair, from, to) {
    if (!this.delay) return from.pipe(to);
    const slow = slowly(this.delay);
    pair.streams.push(slow);
    from.pipe(slow).pipe(to);
  }

  /** The end of one side is the end of the other, unless the pair is frozen. */
  #end(pair) {
    if (pair.frozen && !pair.cut) return;
    this.#pairs.delete(pair);
    // What was written may still be on its way to a peer that is well.
    for (const socket of pair.sockets) pair.cut ? socket.destroy() : socket.destroySoon();
  }

  /** Breaks every connection that is open now. */
  cut() {
    for (const pair of this.#pairs) {
      pair.cut = true;
      this.#end(pair);
    }
  }

  /** Makes every connection of now half-open: nothing passes, not even its end, until `thaw`. */
  freeze() {
    for (const pair of this.#pairs) {
      pair.frozen = true;
      this.#pause(pair);
    }
  }

  #pause(pair) {
    for (const socket of pair.sockets) socket.unpipe().pause();
  }

  /** Lets go on what was frozen, as a network does that heals. */
  thaw() {
    for (const pair of this.#pairs) {
      if (!pair.frozen) continue;
      pair.frozen = false;
      const [client, upstream] = pair.sockets;
      if (!upstream || client.destroyed || upstream.destroyed) {
        pair.cut = true;
        this.#end(pair);
      } else {
        client.pipe(upstream);
        upstream.pipe(client);
      }
    }
  }

  /** Reads nothing more from the backend: the client is slow. */
  stall() {
    for (const pair of this.#pairs) {
      const [client, upstream] = pair.sockets;
      upstream?.unpipe(client).pause();
      pair.stalled = upstream !== undefined;
    }
  }

  /** Reads on. */
  resume() {
    for (const pair of this.#pairs) {
      const [client, upstream] = pair.sockets;
      if (pair.stalled) upstream.pipe(client);
      pair.stalled = false;
    }
  }

  /** Connections open now. */
  get connections() {
    return this.#pairs.size;
  }

  close() {
    this.cut();
    this.server.close();
  }
}
