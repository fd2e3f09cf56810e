// Redis killed with -9 and started again on its append-only file.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { until } from "../harness/deadline.mjs";
import { MIXED, SETTLED_WITHIN, STEADY, faultTest } from "./stage.mjs";

async function restart(stage, redis, meanwhile = () => {}) {
  await stage.flowing(100);
  await redis.stop("SIGKILL");
  await until(() => stage.nodes[0].answers("/health", 503), "/health answering 503", SETTLED_WITHIN);
  await meanwhile();
  await redis.start();
  await stage.flowing(100);
}

faultTest("Redis killed and restarted, appendfsync always: no client is disconnected, and nothing is lost", async (stage) => {
  const redis = await stage.tools.redis({ durable: "always" });
  await stage.start(2, { redis, ...STEADY });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  for (let round = 0; round < 2; round += 1) await restart(stage, redis);
  await stage.verdict();
  await stage.assertNothingLost();
  stage.assertNobodyDisconnected();
});

faultTest("Redis killed and restarted, appendfsync everysec: nothing is lost without notice", async (stage) => {
  const redis = await stage.tools.redis({ durable: "everysec" });
  await stage.start(2, { redis });
  await stage.populate(MIXED);
  await stage.publish();
  await restart(stage, redis);
  await stage.verdict();
});

faultTest("Redis killed and restarted without its last second, appendfsync everysec: every client is notified", async (stage) => {
  const redis = await stage.tools.redis({ durable: "everysec" });
  await stage.start(2, { redis });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  // A power cut also loses what the kernel had not written yet; a kill does not.
  await restart(stage, redis, () => {
    const directory = path.join(redis.directory, "appendonlydir");
    const file = fs.readdirSync(directory).filter((name) => name.endsWith(".incr.aof")).map((name) => path.join(directory, name)).at(-1);
    fs.truncateSync(file, fs.statSync(file).size - 10_000);
  });
  await stage.verdict();
  assert.ok(stage.reports.every(({ notices }) => notices > 0), "every client notified");
});
