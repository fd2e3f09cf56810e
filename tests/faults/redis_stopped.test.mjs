// Redis hangs, and goes on.
import assert from "node:assert/strict";
import { until } from "../e2e/harness/deadline.mjs";
import { SECONDS } from "./harness/random.mjs";
import { MIXED, row } from "./stage.mjs";

row("Redis stopped, then continued: publishes 503, clients stay, nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(2, { redis });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  redis.signal("SIGSTOP");
  await stage.during(Math.min(10, SECONDS * 0.6));
  for (const node of stage.nodes) await until(() => node.answers("/health", 503), "/health telling the truth");
  assert.ok(stage.load.statuses.get("http 503") > 0, "publishes answered 503");
  redis.signal("SIGCONT");
  await stage.flowing(100);
  await stage.verdict();
  await stage.assertNothingLost();
  stage.assertNobodyLeft();
});
