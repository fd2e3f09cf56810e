// `redis.min_replicas`: an event that was answered 200 survives its master, also where the replicas were cut off before.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { until } from "../harness/deadline.mjs";
import { publish } from "../harness/publish.mjs";
import { scenario } from "../harness/scenario.mjs";
import { startSentinels } from "../harness/sentinel.mjs";

/** Publishes one event after the other, each once, through both nodes, and notes the answers. */
function load(nodes) {
  const seen = { accepted: [], refused: new Set(), stop: false };
  const loop = (async () => {
    for (let n = 1; !seen.stop; n += 1) {
      const answer = await publish(nodes[n % nodes.length], { room: "room:a", event: "n", data: n });
      const body = answer.json();
      if (answer.status === 200) {
        assert.match(body.durability, /^replicated:[1-9]/);
        seen.accepted.push(n);
      } else {
        seen.refused.add(body.error.code);
      }
    }
  })();
  seen.end = () => ((seen.stop = true), loop);
  return seen;
}

describe("min_replicas", () => {
  scenario("events answered 200 are on the new master, and events that only the old master had were answered 503", async (s) => {
    const group = s.serve(await startSentinels());
    const settings = { redis: { url: group.url, min_replicas: 1, timeout: "1500ms" } };
    const nodes = await Promise.all([s.node(settings), s.node(settings)]);
    const seen = load(nodes);
    const more = (count) => {
      const goal = seen.accepted.length + count;
      return until(() => seen.accepted.length >= goal, () => `${count} more accepted; refused: ${[...seen.refused]}`, 30_000);
    };
    try {
      await more(100);
      await group.lag();
      await until(() => seen.refused.has("not_replicated"), () => `a publish without a replica; refused: ${[...seen.refused]}`, 30_000);
      await group.failover();
      await more(100);
    } finally {
      await seen.end();
    }
    const keys = ["roomcast:events", ...Array.from({ length: 8 }, (_, index) => `roomcast:events:{${index + 1}}`)];
    const entries = await Promise.all(keys.map((key) => group.master.cli("XRANGE", key, "-", "+")));
    const stored = [...entries.join("\n").matchAll(/^data\n(\d+)$/gm)].map(([, n]) => Number(n));
    const lost = seen.accepted.filter((n) => !stored.includes(n));
    assert.deepEqual(lost, [], "accepted, and not on the new master");
    assert.equal(new Set(stored).size, stored.length, "none twice");
  }, { timeout: 180_000 });
});
