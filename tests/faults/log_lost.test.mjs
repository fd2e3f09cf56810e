// The log is thrown away: everybody is told, once, and what comes after it arrives.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { MIXED, row } from "./stage.mjs";

for (const command of [["FLUSHALL"], ["DEL", "roomcast:events"]]) {
  row(`${command.join(" ")}: every client told, once`, async (stage) => {
    const redis = await stage.tools.redis();
    await stage.start(2, { redis });
    await stage.populate(MIXED, { route: stage.sticky });
    await stage.publish();
    await redis.cli(...command);
    await until(() => stage.clients.every(({ tellings }) => tellings.length > 0), () =>
      `everybody told; not: ${stage.clients.filter(({ tellings }) => tellings.length === 0).map(({ name, state }) => `${name} (${state})`)}`);
    await stage.flowing(100);
    await stage.verdict();
    for (const { name, tellings } of stage.clients) {
      // A /ws client is told of each room.
      const told = tellings.flatMap(({ rooms, how }) => (name.startsWith("ws") ? rooms : [how]));
      assert.equal(new Set(told).size, told.length, `${name} was told more than once: ${JSON.stringify(tellings)}`);
    }
    const gaps = await Promise.all(stage.nodes.map(async (node) => (await node.get("/metrics")).text.match(/^roomcast_gaps_total\{.*\} [1-9]/m)));
    assert.ok(gaps.every(Boolean), "a metric counts it");
  });
}
