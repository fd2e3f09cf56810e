// Three nodes restarted one after the other by SIGTERM, under load: nothing lost, and no herd of reconnections.
import assert from "node:assert/strict";
import { MIXED, row } from "./stage.mjs";

const DRAIN = 2;
const BIN = 100;
/** The wave may be this many times as high as an even one, and some more, since few clients clump. */
const CLUMPS = { times: 3, more: 4 };

row("rolling restart of three nodes: all recovered, nothing lost, the reconnections paced", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(3, { redis, shutdown: { pause: "400ms", drain: `${DRAIN}s`, timeout: "8s" } });
  await stage.populate({ ...MIXED, crowd: 120 });
  await stage.publish({ targets: [stage.balancer.line, stage.balancer.line, stage.balancer.line] });
  const waves = [];
  for (const old of stage.nodes) {
    await stage.flowing(60);
    const begun = performance.now();
    const exit = await old.stop("SIGTERM");
    assert.deepEqual([exit.code, exit.signal], [0, null]);
    waves.push(wave(stage.clients, begun, performance.now()));
    await stage.join(old);
    await stage.everybodyReady();
  }
  for (const { moved, peak } of waves) {
    const even = (moved * BIN) / (DRAIN * 1000);
    console.log(`# rolling restart: ${moved} connections ended over ${DRAIN} s, at most ${peak} in ${BIN} ms (even: ${even.toFixed(1)})`);
    assert.ok(peak <= even * CLUMPS.times + CLUMPS.more, `${peak} connections ended within ${BIN} ms, ${even.toFixed(1)} would be even`);
  }
  await stage.verdict();
  await stage.assertNothingLost();
});

/** How many connections ended in this time, and how many at most within one bin. */
function wave(clients, from, to) {
  const ends = clients.flatMap(({ ends }) => ends).filter((at) => at >= from && at <= to).sort((one, other) => one - other);
  const peak = Math.max(0, ...ends.map((at) => ends.filter((other) => other >= at && other < at + BIN).length));
  return { moved: ends.length, peak };
}
