// Redis hangs for seconds and continues.
import { until } from "../harness/deadline.mjs";
import { SECONDS } from "../harness/random.mjs";
import { MIXED, SETTLED_WITHIN, STEADY, faultTest } from "./stage.mjs";

async function stopAndContinue(stage, redis) {
  redis.signal("SIGSTOP");
  await stage.during(Math.min(10, SECONDS * 0.6));
  for (const node of stage.nodes) await until(() => node.answers("/health", 503), "/health answering 503", SETTLED_WITHIN);
  await until(() => stage.load.statuses.get("http 503") > 0, "publishes answered 503");
  redis.signal("SIGCONT");
  await stage.flowing(100);
  await stage.verdict();
  await stage.assertNothingLost();
}

faultTest("Redis hangs: publishes are answered 503, clients stay connected, and nothing is lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(2, { redis, ...STEADY });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  await stopAndContinue(stage, redis);
  stage.assertNobodyDisconnected();
});

faultTest("Redis hangs, without sticky sessions: only polling clients may be disconnected, and every client that returns is recovered", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(2, { redis, ...STEADY });
  await stage.populate(MIXED);
  await stage.publish();
  await stopAndContinue(stage, redis);
  // A polling request that reaches the wrong node while the nodes cannot talk ends its connection.
  stage.assertNobodyDisconnected(stage.clients.filter(({ name }) => !name.startsWith("polling")));
});
