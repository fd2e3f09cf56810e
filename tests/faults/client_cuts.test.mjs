// Client connections that are cut at random, and connections that go dead silently, again and again.
import { SECONDS } from "../harness/random.mjs";
import { CALM, MIXED, faultTest } from "./stage.mjs";

/** Milliseconds for which a proxy stays down. */
const DOWN = [50, Math.min(3000, (SECONDS * 1000) / 3)];

faultTest("connections cut at random: every client is recovered, and nothing is lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(1, { redis, ...CALM });
  await stage.populate(MIXED);
  await stage.publish();
  const due = new Map(stage.clients.map((client) => [client, performance.now() + stage.random.between(0, 1000)]));
  await stage.during(SECONDS, () => {
    for (const [client, at] of due) {
      if (performance.now() < at) continue;
      const { proxy } = client;
      if (proxy.up) proxy.cut();
      proxy.up = !proxy.up;
      const [min, max] = proxy.up ? [100, 1500] : DOWN;
      due.set(client, performance.now() + min * (max / min) ** stage.random.next());
    }
    const one = stage.random.pick(stage.clients);
    if (stage.random.next() < 0.02) one.churn?.(stage.random.pick(one.rooms));
  });
  for (const { proxy } of stage.clients) proxy.up = true;
  await stage.verdict();
  await stage.assertNothingLost();
});

faultTest("connections that go dead silently: every client is recovered, and nothing is lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(1, { redis });
  await stage.populate(MIXED);
  await stage.publish();
  const due = new Map(stage.clients.map((client) => [client, performance.now() + stage.random.between(0, (SECONDS * 1000) / 2)]));
  await stage.during(SECONDS, () => {
    for (const [client, at] of due) {
      if (performance.now() < at) continue;
      client.proxy.freeze();
      // Half of the clients give up soon and return while the node still keeps the old connection; the heartbeat ends the others.
      if (stage.random.next() < 0.5) client.after(stage.random.between(50, 1000), () => client.hangUp());
      due.set(client, performance.now() + stage.random.between(2500, 5000));
    }
  });
  await stage.verdict();
  await stage.assertNothingLost();
});
