// The log is deleted: every client is notified once, and later events arrive.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { CALM, MIXED, SETTLED_WITHIN, faultTest } from "./stage.mjs";

for (const command of [["FLUSHALL"], ["DEL", "roomcast:events"]]) {
  faultTest(`${command.join(" ")}: every client is notified once, and later events arrive`, async (stage) => {
    const redis = await stage.tools.redis();
    await stage.start(2, { redis, ...CALM });
    await stage.populate(MIXED, { route: stage.sticky });
    await stage.publish();
    await redis.cli(...command);
    await until(() => stage.clients.every(({ notices }) => notices.length > 0), () =>
      `all clients notified; not: ${stage.clients.filter(({ notices }) => notices.length === 0).map(({ name, state }) => `${name} (${state})`)}`, SETTLED_WITHIN);
    await stage.flowing(100);
    await stage.verdict();
    for (const { name, notices } of stage.clients) {
      // A /ws client is notified for each room.
      const each = notices.flatMap(({ rooms, how }) => (name.startsWith("ws") ? rooms : [how]));
      assert.equal(new Set(each).size, each.length, `${name} was notified more than once: ${JSON.stringify(notices)}`);
    }
    const gaps = await Promise.all(stage.nodes.map(async (node) => (await node.get("/metrics")).text.match(/^roomcast_gaps_total\{.*\} [1-9]/m)));
    assert.ok(gaps.every(Boolean), "roomcast_gaps_total counts it");
  });
}
