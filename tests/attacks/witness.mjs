// A bystander of an attack whose latency is measured: alone first, then while the attack lasts.
import assert from "node:assert/strict";
import { performance } from "node:perf_hooks";
import { published } from "../harness/publish.mjs";
import { within } from "../harness/deadline.mjs";
import { tokenFor } from "../harness/token.mjs";

const SAMPLES = 60;
// An attack's clients run in the process that measures, and the machine may be busy with others: only a delay that is several
// times as long as without the attack is the node's.
const FACTOR = 4;
const FLOOR_MS = 20;

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

/** Samples one after the other until `enough()`. */
async function sample(step, enough) {
  const times = [];
  while (!enough(times)) {
    const began = performance.now();
    await step();
    times.push(performance.now() - began);
  }
  return times;
}

/**
 * A connected bystander of `node`; `publisher` is the node that publishes to it. `step` replaces what is measured: by
 * default an event that is published to it and arrives. `transports` are the client's; `ready` is called once it is
 * connected.
 */
export async function witness({ io }, node, { user = "witness", publisher = node, step, transports, ready } = {}) {
  const client = await io(node, { token: tokenFor(user), ...(transports && { transports }) }).connected();
  ready?.();
  let number = 0;
  const receive = async () => {
    const own = ++number;
    // Not `until`, whose pause between two looks is longer than what is measured.
    const arrived = new Promise((resolve) => client.socket.once("still here", resolve));
    await published(publisher, { room: `user:${user}`, event: "still here", data: own });
    assert.equal(await within(arrived, `event ${own} at the bystander`), own);
  };
  const measured = step ? () => step(client) : receive;
  const alone = median(await sample(measured, (times) => times.length >= SAMPLES));
  return {
    client,
    /** How many events were published to it. */
    events: () => number,
    /** Measures while `attack` (a promise) lasts, and at least a whole sample. Resolves with what the attack resolves with. */
    async during(attack) {
      let over = false;
      const attacked = Promise.resolve(attack).finally(() => (over = true));
      attacked.catch(() => {});
      const times = await sample(measured, (times) => over && times.length >= SAMPLES);
      const limit = Math.max(FACTOR * alone, FLOOR_MS);
      const shown = `${median(times).toFixed(2)} ms, ${alone.toFixed(2)} ms alone`;
      assert.ok(median(times) <= limit, `the bystander waits: ${shown}`);
      return attacked;
    },
    /** Still connected by its first connection, and every event that was published to it has arrived, once and in order. */
    unharmed() {
      assert.deepEqual([client.connects, client.disconnects], [1, []]);
      if (!step) assert.deepEqual(client.argsOf("still here"), Array.from({ length: number }, (_, index) => [index + 1]));
    },
  };
}
