// A bystander of an attack whose latency is measured: alone first, then while the attack lasts.
import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { published } from "../harness/publish.mjs";
import { within } from "../harness/deadline.mjs";
import { tokenFor } from "../harness/token.mjs";

const SAMPLES = 60;
// An attack's clients run in the process that measures, and the machine may be busy with others: only a delay that is several
// times as long as without the attack is the node's. How much slower the process and the machine have become meanwhile is
// measured in turns with it, at a node that nobody attacks.
const FACTOR = 4;
const FLOOR_MS = 20;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

async function timed(step) {
  const began = performance.now();
  await step();
  return performance.now() - began;
}

/** Samples both in turns until `enough()`, and resolves with their medians. */
async function sample(measured, compared, enough) {
  const [times, others] = [[], []];
  while (!enough(times)) {
    times.push(await timed(measured));
    others.push(await timed(compared));
  }
  return { own: median(times), other: median(others) };
}

/** A function that publishes an event through `publisher` and resolves once `client` has it. */
function receiving(client, publisher, user) {
  let number = 0;
  const receive = async () => {
    const own = ++number;
    // Not `until`, whose pause between two looks is longer than what is measured.
    const arrived = new Promise((resolve) => client.socket.once("still here", resolve));
    await published(publisher, { room: `user:${user}`, event: "still here", data: own });
    assert.equal(await within(arrived, `event ${own} at the ${user}`), own);
  };
  return { receive, number: () => number };
}

/**
 * A connected bystander of `node`; `publisher` is the node that publishes to it. `step` replaces what is measured: by
 * default an event that is published to it and arrives. `transports` are the client's; `ready` is called once it is
 * connected.
 */
export async function witness(s, node, { user = "witness", token = tokenFor(user), publisher = node, step, transports, ready } = {}) {
  const spared = await s.node();
  const other = await s.io(spared, { token: tokenFor("spared"), transports: ["websocket"] }).connected();
  const compared = receiving(other, spared, "spared").receive;
  const client = await s.io(node, { token, ...(transports && { transports }) }).connected();
  ready?.();
  const { receive, number } = receiving(client, publisher, user);
  const measured = step ? () => step(client) : receive;
  const alone = await sample(measured, compared, (times) => times.length >= SAMPLES);
  return {
    client,
    /** How many events were published to it. */
    events: number,
    /** Measures while `attack` (a promise) lasts, and at least a whole sample. Resolves with what the attack resolves with. */
    async during(attack) {
      let over = false;
      const attacked = Promise.resolve(attack).finally(() => (over = true));
      attacked.catch(() => {});
      const now = await sample(measured, compared, (times) => over && times.length >= SAMPLES);
      const slowdown = Math.max(1, now.other / alone.other);
      const limit = Math.max(FACTOR * alone.own * slowdown, FLOOR_MS);
      const shown = `${now.own.toFixed(2)} ms, ${alone.own.toFixed(2)} ms alone; a node that is not attacked ${now.other.toFixed(2)} ms, ${alone.other.toFixed(2)} ms`;
      assert.ok(now.own <= limit, `the bystander waits: ${shown}`);
      return attacked;
    },
    /** Still connected by its first connection, and every event that was published to it has arrived, once and in order. */
    unharmed() {
      assert.deepEqual([client.connects, client.disconnects], [1, []]);
      if (!step) assert.deepEqual(client.argsOf("still here"), Array.from({ length: number() }, (_, index) => [index + 1]));
    },
  };
}
