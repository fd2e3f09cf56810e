// Redis killed with -9 and started again on its append-only file.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { until } from "../harness/deadline.mjs";
import { MIXED, row } from "./stage.mjs";

async function restart(stage, redis, meanwhile = () => {}) {
  await stage.flowing(100);
  await redis.stop("SIGKILL");
  await until(() => stage.nodes[0].answers("/health", 503), "/health telling the truth");
  await meanwhile();
  await redis.start();
  await stage.flowing(100);
}

row("Redis restarted, AOF always: nobody disconnected, nothing lost", async (stage) => {
  const redis = await stage.tools.redis({ durable: "always" });
  await stage.start(2, { redis });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  for (let round = 0; round < 2; round += 1) await restart(stage, redis);
  await stage.verdict();
  await stage.assertNothingLost();
  stage.assertNobodyLeft();
});

row("Redis restarted, AOF everysec: nothing lost, or told", async (stage) => {
  const redis = await stage.tools.redis({ durable: "everysec" });
  await stage.start(2, { redis });
  await stage.populate(MIXED);
  await stage.publish();
  await restart(stage, redis);
  await stage.verdict();
});

row("Redis restarted, AOF everysec and its last second lost: told", async (stage) => {
  const redis = await stage.tools.redis({ durable: "everysec" });
  await stage.start(2, { redis });
  await stage.populate(MIXED, { route: stage.sticky });
  await stage.publish();
  // What a power cut takes that a kill does not: what the kernel had not written yet.
  await restart(stage, redis, () => {
    const directory = path.join(redis.directory, "appendonlydir");
    const file = fs.readdirSync(directory).filter((name) => name.endsWith(".incr.aof")).map((name) => path.join(directory, name)).at(-1);
    fs.truncateSync(file, fs.statSync(file).size - 10_000);
  });
  await stage.verdict();
  assert.ok(stage.reports.every(({ tellings }) => tellings > 0), "everybody told");
});
