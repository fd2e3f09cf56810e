// Three nodes restarted one after the other with SIGTERM, under load.
import assert from "node:assert/strict";
import { CALM, MIXED, faultTest } from "./stage.mjs";

const DRAIN = 6;
/** Milliseconds; long, because whatever ends while this process is not running, for two seconds, ends in one moment for it. */
const BIN = 1500;
/** How far the busiest bin may exceed an even spread: a factor, and a constant since few clients spread unevenly. */
const PEAK = { factor: 2.5, more: 4 };

faultTest("rolling restart of three nodes: every client is recovered, nothing is lost, and the reconnections are spread over shutdown.drain", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(3, { redis, ...CALM, shutdown: { pause: "400ms", drain: `${DRAIN}s`, timeout: "20s" } });
  await stage.populate({ ...MIXED, crowd: 120 });
  await stage.publish({ targets: [stage.balancer.proxy, stage.balancer.proxy, stage.balancer.proxy] });
  const waves = [];
  for (const old of stage.nodes) {
    await stage.flowing(60);
    const begun = performance.now();
    const exit = await old.stop("SIGTERM", 40_000);
    assert.deepEqual([exit.code, exit.signal], [0, null]);
    waves.push(wave(stage.clients, begun, performance.now()));
    await stage.join(old);
    await stage.allReady();
  }
  for (const { moved, peak } of waves) {
    const even = (moved * BIN) / (DRAIN * 1000);
    console.log(`# rolling restart: ${moved} connections ended over ${DRAIN} s, at most ${peak} in ${BIN} ms (even: ${even.toFixed(1)})`);
    assert.ok(peak <= even * PEAK.factor + PEAK.more, `${peak} connections ended within ${BIN} ms, ${even.toFixed(1)} would be even`);
  }
  await stage.verdict();
  await stage.assertNothingLost();
});

/** How many connections ended in this time, and how many at most within one bin. */
function wave(clients, from, to) {
  const ends = clients.flatMap(({ disconnectedAt }) => disconnectedAt).filter((at) => at >= from && at <= to).sort((one, other) => one - other);
  const peak = Math.max(0, ...ends.map((at) => ends.filter((other) => other >= at && other < at + BIN).length));
  return { moved: ends.length, peak };
}
