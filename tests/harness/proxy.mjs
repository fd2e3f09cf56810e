// A TCP proxy that a test can break in all the usual ways.
import net from "node:net";
import { only } from "./balancer.mjs";
import { authorityOf, trust } from "./http.mjs";

export class Proxy {
  /** `false`: new connections are refused. */
  up = true;
  /** `true`: new connections are accepted, and nothing passes. */
  silent = false;
  #pairs = new Set();

  constructor(balancer) {
    this.balancer = balancer;
    this.server = net.createServer({ pauseOnConnect: true }, (client) => this.#serve(client));
    this.server.on("error", () => {});
  }

  async open() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    this.port = this.server.address().port;
    const [backend] = this.balancer.backends();
    const s = backend?.tls ? "s" : "";
    this.url = `http${s}://127.0.0.1:${this.port}`;
    this.socketUrl = `ws${s}://127.0.0.1:${this.port}`;
    this.tls = backend?.tls;
    if (backend?.tls) trust(this.url, authorityOf(backend.url));
    return this;
  }

  /** The only backend of new connections from now on. */
  set target(backend) {
    this.balancer = only(backend);
  }
  get target() {
    return this.balancer.backends()[0];
  }

  #serve(client) {
    client.on("error", () => {});
    if (!this.up) return client.resetAndDestroy();
    const pair = { sockets: [client] };
    this.#pairs.add(pair);
    client.once("close", () => this.#end(pair));
    if (!this.silent) this.#dial(pair, this.balancer.backends());
  }

  #dial(pair, [backend, ...others]) {
    const [client] = pair.sockets;
    if (!backend) return this.#end(pair);
    const upstream = net.connect(backend.port, "127.0.0.1");
    upstream.once("error", () => !pair.connected && !client.destroyed && this.#dial(pair, others));
    upstream.once("connect", () => {
      upstream.on("error", () => {});
      if (client.destroyed) return upstream.destroy();
      pair.connected = true;
      pair.sockets.push(upstream);
      upstream.once("close", () => this.#end(pair));
      client.pipe(upstream);
      upstream.pipe(client);
      if (pair.frozen) this.#pause(pair);
    });
  }

  /** The end of one side is the end of the other, unless the pair is frozen. */
  #end(pair) {
    if (pair.frozen && !pair.cut) return;
    this.#pairs.delete(pair);
    // What was written may still be on its way to a healthy peer.
    for (const socket of pair.sockets) pair.cut ? socket.destroy() : socket.destroySoon();
  }

  /** Breaks every open connection. */
  cut() {
    for (const pair of this.#pairs) {
      pair.cut = true;
      this.#end(pair);
    }
  }

  /** Makes every open connection half-open: nothing passes, not even its end, until `thaw`. */
  freeze() {
    for (const pair of this.#pairs) {
      pair.frozen = true;
      this.#pause(pair);
    }
  }

  #pause(pair) {
    for (const socket of pair.sockets) socket.unpipe().pause();
  }

  /** Frozen connections continue, as after a network partition. */
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

  /** Discards what the backends send on the open connections; what they receive still arrives. */
  mute() {
    for (const { sockets: [client, upstream] } of this.#pairs) upstream?.unpipe(client).resume();
  }

  /** Reads nothing more from the backends: the clients are slow. */
  stall() {
    for (const pair of this.#pairs) {
      const [client, upstream] = pair.sockets;
      upstream?.unpipe(client).pause();
      pair.stalled = upstream !== undefined;
    }
  }

  /** Ends `stall`. */
  resume() {
    for (const pair of this.#pairs) {
      const [client, upstream] = pair.sockets;
      if (pair.stalled) upstream.pipe(client);
      pair.stalled = false;
    }
  }

  close() {
    this.cut();
    this.server.close();
  }
}

/** A proxy to `target` (anything with a `port`); assign `proxy.target` to lead new connections elsewhere. */
export const startProxy = (target) => new Proxy(only(target)).open();
