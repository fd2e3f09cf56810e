// A test with everything that it starts: all of it ends with the test, and a failure prints the output of the nodes.
import { describe, test } from "node:test";
import { connectEventSource, connectIo, connectSse, connectWs } from "./clients.mjs";
import { startGateway } from "./gateway.mjs";
import { startNode } from "./node.mjs";
import { startProxy } from "./proxy.mjs";
import { RawSocket } from "./raw.mjs";
import { startRedis } from "./redis.mjs";

// Many times what a scenario takes: a slow machine that others share needs it, and a condition that hangs has a deadline of its own.
const TEST_TIMEOUT = 240_000;
// Tests mostly wait, but with more than this at once a machine of two cores misses their deadlines.
const SIDE_BY_SIDE = 4;
// With it, clients and publishers of every test reach each node through this proxy, by TLS. Requests by hand go to the node.
const GATEWAY = process.env.ROOMCAST_GATEWAY;

class Scenario {
  #nodes = [];
  #clients = [];
  #servers = [];

  node = async (...args) => {
    const node = await startNode(...args);
    this.#nodes.push(node);
    if (GATEWAY) {
      const { url, socketUrl } = this.#server(await startGateway(GATEWAY, [node]));
      Object.assign(node, { url, socketUrl });
    }
    return node;
  };
  redis = async (options) => this.#server(await startRedis(options));
  proxy = async (target) => this.#server(await startProxy(target));
  io = (node, options) => this.keep(connectIo(node, options));
  ws = (node, options) => this.keep(connectWs(node, options));
  sse = (node, options) => this.keep(connectSse(node, options));
  eventSource = (node, options) => this.keep(connectEventSource(node, options));
  raw = (node) => this.keep(new RawSocket(node));

  /** Repeats `step` until `stop()`, which resolves after the last one, or until the end of the test. */
  repeat = (step) => {
    let running = true;
    const done = (async () => {
      while (running) await step();
    })();
    // An error after the end of a failed test must not hide the test's own.
    done.catch(() => {});
    return this.keep({ stop: () => ((running = false), done), close: () => (running = false) });
  };

  /** Closes `thing` with the test, before the nodes end. */
  keep = (thing) => (this.#clients.push(thing), thing);
  /** Closes `thing` with the test, after the nodes end. */
  serve = (thing) => this.#server(thing);
  #server = (thing) => (this.#servers.push(thing), thing);

  async end() {
    for (const client of this.#clients) client.close();
    try {
      await Promise.all(this.#nodes.map(endNode));
    } finally {
      for (const client of this.#clients) client.abandon?.();
      await Promise.all(this.#servers.map((server) => server.close()));
    }
  }

  output = () => this.#nodes.map((node) => `--- output of roomcast on ${node.port} ---\n${node.output}`).join("\n");
}

async function endNode(node) {
  if (node.exit && !node.stopping) throw new Error(`roomcast ended by itself: ${JSON.stringify(node.exit)}`);
  await node.stop();
  node.assertNoPanic();
}

/**
 * Runs `body(started)` and ends what was started, whatever happens. A failure prints `started.output()`.
 */
export async function runAndEnd(started, body, name) {
  let failure;
  try {
    await body(started);
  } catch (error) {
    failure = error;
  }
  await started.end().catch((error) => (failure ??= error));
  if (!failure) return;
  const output = started.output();
  if (output) console.error(`\n=== ${name} ===\n${output}`);
  throw failure;
}

/** The tests of one file, which run side by side. */
export const suite = (name, body) => describe(name, { concurrency: SIDE_BY_SIDE }, body);

/** One test with its scenario as argument. */
export function scenario(name, body, options = {}) {
  test(name, { timeout: TEST_TIMEOUT, ...options }, () => runAndEnd(new Scenario(), body, name));
}
