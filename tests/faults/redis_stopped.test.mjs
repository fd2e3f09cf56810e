// Redis hangs, and goes on.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { SECONDS } from "../harness/random.mjs";
import { MIXED, row } from "./stage.mjs";

async function stopAndContinue(stage, redis) {
  redis.signal("SIGSTOP");
  await stage.during(Math.min(10, SECONDS * 0.6));
  for (const node of stage.nodes) await until(() => node.answers("/health", 503), "/health telling the truth");
  assert.ok(stage.load.statuses.get("http 503") > 0, "publishes answered 503");
  redis.signal("SIGCONT");
  await stage.flowing(100);
  await stage.verdict();
  await stage.assertNothingLost();
}

row("Redis stopped, then continued: publishes 503, clients stay, nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(2, { redis });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  await stopAndContinue(stage, redis);
  stage.assertNobodyLeft();
});

row("Redis stopped, then continued, polling without stickiness: who stays stays, who comes back is recovered", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(2, { redis });
  await stage.populate(MIXED);
  await stage.publish();
  await stopAndContinue(stage, redis);
  // A polling request that comes to the wrong node while nodes cannot talk ends its connection, and no more.
  stage.assertNobodyLeft(stage.clients.filter(({ name }) => !name.startsWith("polling")));
});
