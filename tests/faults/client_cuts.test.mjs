// Connections of clients that are cut at random, again and again, and lines that go dead without a word.
import { SECONDS } from "../harness/random.mjs";
import { MIXED, row } from "./stage.mjs";

/** Milliseconds that a line stays down. */
const DOWN = [50, Math.min(3000, (SECONDS * 1000) / 3)];

row("connections cut at random: all recovered, nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(1, { redis });
  await stage.populate(MIXED);
  await stage.publish();
  const due = new Map(stage.clients.map((client) => [client, performance.now() + stage.random.between(0, 1000)]));
  await stage.during(SECONDS, () => {
    for (const [client, at] of due) {
      if (performance.now() < at) continue;
      const { line } = client;
      if (line.up) line.cut();
      line.up = !line.up;
      const [least, most] = line.up ? [100, 1500] : DOWN;
      due.set(client, performance.now() + least * (most / least) ** stage.random.next());
    }
    const one = stage.random.pick(stage.clients);
    if (stage.random.next() < 0.02) one.churn?.(stage.random.pick(one.rooms));
  });
  for (const { line } of stage.clients) line.up = true;
  await stage.verdict();
  await stage.assertNothingLost();
});

row("lines that go dead without a word: all recovered, nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(1, { redis });
  await stage.populate(MIXED);
  await stage.publish();
  const due = new Map(stage.clients.map((client) => [client, performance.now() + stage.random.between(0, (SECONDS * 1000) / 2)]));
  await stage.during(SECONDS, () => {
    for (const [client, at] of due) {
      if (performance.now() < at) continue;
      client.line.freeze();
      // Half of them notice soon and come back while the node still believes in the old line; the others by the heartbeat.
      if (stage.random.next() < 0.5) client.after(stage.random.between(50, 1000), () => client.hangUp());
      due.set(client, performance.now() + stage.random.between(2500, 5000));
    }
  });
  await stage.verdict();
  await stage.assertNothingLost();
});
