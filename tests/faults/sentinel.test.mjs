// The master of a Sentinel group is killed, and a replica takes its place.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { startSentinels } from "../harness/sentinel.mjs";
import { ONCE } from "./load.mjs";
import { MIXED, row } from "./stage.mjs";

async function setUp(stage) {
  const group = await startSentinels();
  stage.closeLast(group);
  await stage.start(2, { url: group.url });
  await stage.populate(MIXED);
  await stage.publish({ streams: [group.client(ONCE), group.client(ONCE)] });
  return group;
}

/**
 * Where a slow machine made the Sentinels fail over once more, the master between had no replica that follows and was
 * alive when it was replaced: what XADD gave it then is gone, and no node can know of it.
 */
async function verdict(stage, group) {
  const failovers = await group.failovers();
  if (failovers > 1) {
    console.log(`# the Sentinels failed over ${failovers} times`);
    for (const event of stage.ledger.events.filter(({ by }) => by.startsWith("xadd"))) event.state = "unknown";
  }
  await stage.verdict();
}

row("Sentinel failover, master killed: nothing lost, or told; well by itself, also when the old master is back", async (stage) => {
  const group = await setUp(stage);
  await stage.flowing(100);
  const dead = await group.failover();
  for (const node of stage.nodes) await until(() => node.answers("/health"), "well by itself");
  await stage.flowing(100);
  await dead.start();
  await until(async () => /^role:slave/m.test(await dead.cli("INFO", "replication")), "the old master a replica", 20_000);
  await stage.flowing(50);
  await verdict(stage, group);
});

row("Sentinel failover, a lagging replica promoted, ids go back: everybody told", async (stage) => {
  const group = await setUp(stage);
  await stage.flowing(60);
  await group.lag();
  // As if the old master's clock were a minute ahead: what the new one gives out are ids that nodes believe to have read.
  await group.master.cli("XADD", "roomcast:events", `${Date.now() + 60_000}-0`, "room", "room:nobody", "event", "ahead");
  await stage.flowing(60);
  await group.failover();
  for (const node of stage.nodes) await until(() => node.answers("/health"), "well by itself");
  await stage.flowing(100);
  await verdict(stage, group);
  assert.deepEqual(stage.clients.filter(({ tellings }) => tellings.length === 0).map(({ name }) => name), [], "not told");
});
