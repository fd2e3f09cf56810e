// The master of a Sentinel group is killed, and a replica is promoted.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { startSentinels } from "../harness/sentinel.mjs";
import { ONCE } from "./load.mjs";
import { MIXED, SETTLED_WITHIN, faultTest } from "./stage.mjs";

async function setUp(stage) {
  const group = await startSentinels();
  stage.closeLast(group);
  await stage.start(2, { url: group.url });
  await stage.populate(MIXED);
  await stage.publish({ streams: [group.client(ONCE), group.client(ONCE)] });
  return group;
}

/**
 * On a slow machine the Sentinels may fail over twice. The master in between had no replica and was alive when it was
 * replaced: what XADD added to it then is gone, and no node can know of it.
 */
async function verdict(stage, group) {
  const failovers = await group.failovers();
  if (failovers > 1) {
    console.log(`# the Sentinels failed over ${failovers} times`);
    for (const event of stage.history.events.filter(({ by }) => by.startsWith("xadd"))) event.state = "unknown";
  }
  await stage.verdict();
}

faultTest("Sentinel: the master is killed and returns later: nothing is lost without notice, and nodes recover by themselves", async (stage) => {
  const group = await setUp(stage);
  await stage.flowing(100);
  const dead = await group.failover();
  for (const node of stage.nodes) await until(() => node.answers("/health"), "every node ready again", SETTLED_WITHIN);
  await stage.flowing(100);
  await dead.start();
  // Sentinel closes all connections of a server whose role it changes.
  await until(async () => /^role:slave/m.test(await dead.cli("INFO", "replication").catch(() => "")), "the old master a replica", SETTLED_WITHIN);
  await stage.flowing(50);
  await verdict(stage, group);
});

faultTest("Sentinel: a lagging replica with a slow clock is promoted: every client is notified", async (stage) => {
  const group = await setUp(stage);
  await stage.flowing(60);
  await group.lag();
  // As if the old master's clock were a minute ahead: the new master assigns ids that the nodes have already read.
  await group.master.cli("XADD", "roomcast:events", `${Date.now() + 60_000}-0`, "room", "room:nobody", "event", "ahead");
  await stage.flowing(60);
  await group.failover();
  for (const node of stage.nodes) await until(() => node.answers("/health"), "every node ready again", SETTLED_WITHIN);
  await stage.flowing(100);
  await verdict(stage, group);
  assert.deepEqual(stage.clients.filter(({ notices }) => notices.length === 0).map(({ name }) => name), [], "not notified");
});
