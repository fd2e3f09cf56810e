// A TCP balancer of one target, which a test may change or cut.
import net from "node:net";

class Proxy {
  #sockets = new Set();
  #upstreams = new Set();

  constructor(target) {
    this.target = target;
    this.server = net.createServer((client) => this.#serve(client));
  }

  #serve(client) {
    const upstream = net.connect(this.target.port, "127.0.0.1");
    this.#upstreams.add(upstream);
    upstream.on("close", () => this.#upstreams.delete(upstream));
    for (const [socket, peer] of [[client, upstream], [upstream, client]]) {
      this.#sockets.add(socket);
      socket.on("error", () => peer.destroy());
      socket.on("close", () => (peer.destroy(), this.#sockets.delete(socket)));
      socket.pipe(peer);
    }
  }

  get port() {
    return this.server.address().port;
  }
  get url() {
    return `http://127.0.0.1:${this.port}`;
  }
  get socketUrl() {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** Cuts every connection, as a broken network does. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** On every connection of now what the target answers is lost; what it is told still arrives. New ones work. */
  mute() {
    for (const upstream of this.#upstreams) upstream.unpipe().resume();
  }

  /** Makes every connection of now half-open: nothing passes any more, not even its end. New ones work. */
  freeze() {
    for (const socket of this.#sockets) {
      socket.removeAllListeners("close").removeAllListeners("error").on("error", () => {});
      socket.unpipe().pause();
    }
  }

  close() {
    this.cut();
    this.server.close();
  }
}

/** A balancer before `target` (a node); assign `proxy.target` to move new connections. */
export async function startProxy(target) {
  const proxy = new Proxy(target);
  await new Promise((resolve) => proxy.server.listen(0, "127.0.0.1", resolve));
  return proxy;
}
