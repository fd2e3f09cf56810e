// One node is cut off from Redis, by a line that goes dead.
import { until } from "../harness/deadline.mjs";
import { Line, only } from "../harness/balancer.mjs";
import { SECONDS } from "../harness/random.mjs";
import { MIXED, row } from "./stage.mjs";

for (const [how, heal] of [
  ["the old connections go on", (line) => line.thaw()],
  ["the old connections are gone", (line) => line.cut()],
]) {
  row(`one node parted from Redis, ${how}: told by /health, others unharmed, well by itself, nothing lost`, async (stage) => {
    const redis = await stage.tools.redis();
    const line = stage.tools.keep(await new Line(only(redis)).open());
    await stage.start(1, { redis });
    const parted = await stage.join(undefined, { url: `redis://127.0.0.1:${line.port}/0` });
    await stage.populate(MIXED, { route: stage.sticky });
    await stage.publish();
    line.freeze();
    line.deaf = true;
    await until(() => parted.answers("/health", 503), "/health telling the truth");
    await stage.during(SECONDS * 0.4, async () => {
      if (!(await stage.nodes[0].answers("/health"))) throw new Error("the other node is not well");
    });
    await stage.flowing();
    line.deaf = false;
    heal(line);
    await until(() => parted.answers("/health"), "well by itself");
    await stage.flowing(100);
    await stage.verdict();
    await stage.assertNothingLost();
    stage.assertNobodyLeft();
  });
}
