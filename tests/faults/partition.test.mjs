// One node is cut off from Redis by a connection that goes dead.
import { until } from "../harness/deadline.mjs";
import { only } from "../harness/balancer.mjs";
import { Proxy } from "../harness/proxy.mjs";
import { SECONDS } from "../harness/random.mjs";
import { MIXED, SETTLED_WITHIN, STEADY, faultTest } from "./stage.mjs";

for (const [how, heal] of [
  ["its old connections continue", (proxy) => proxy.thaw()],
  ["its old connections are gone", (proxy) => proxy.cut()],
]) {
  faultTest(`a node cut off from Redis, ${how}: its /health is 503, the other node is unaffected, and nothing is lost`, async (stage) => {
    const redis = await stage.tools.redis();
    const proxy = stage.tools.keep(await new Proxy(only(redis)).open());
    await stage.start(1, { redis, ...STEADY });
    const cutOff = await stage.join(undefined, { url: `redis://127.0.0.1:${proxy.port}/0` });
    await stage.populate(MIXED, { route: stage.sticky });
    await stage.publish();
    proxy.freeze();
    proxy.silent = true;
    await until(() => cutOff.answers("/health", 503), "/health answering 503", SETTLED_WITHIN);
    // A pause of a busy machine may be as long as `redis.timeout`.
    await stage.during(SECONDS * 0.4, () => until(() => stage.nodes[0].answers("/health"), "the other node ready", 5_000));
    await stage.flowing();
    proxy.silent = false;
    heal(proxy);
    await until(() => cutOff.answers("/health"), "the node ready again", SETTLED_WITHIN);
    await stage.flowing(100);
    await stage.verdict();
    await stage.assertNothingLost();
    stage.assertNobodyDisconnected();
  });
}
