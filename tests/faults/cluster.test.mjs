// A Redis Cluster: the master of the stream's slot dies, and the slot moves.
import { until } from "../harness/deadline.mjs";
import { startCluster } from "../harness/redis_cluster.mjs";
import { ONCE } from "./load.mjs";
import { MIXED, SETTLED_WITHIN, STEADY, faultTest } from "./stage.mjs";

async function setUp(stage, { route } = {}) {
  const group = await startCluster();
  stage.closeLast(group);
  await stage.start(2, { url: group.url, ...STEADY });
  await stage.populate(MIXED, { route });
  await stage.publish({ streams: [group.client(ONCE), group.client(ONCE)] });
  return group;
}

faultTest("Redis Cluster: the master of the stream's slot is killed: nothing is lost without notice, and nodes recover by themselves", async (stage) => {
  const group = await setUp(stage);
  await stage.flowing(100);
  const slot = await group.slotOf("roomcast:events");
  const dead = await group.failover(slot);
  for (const node of stage.nodes) await until(() => node.answers("/health"), "every node ready again", SETTLED_WITHIN);
  await stage.flowing(100);
  await dead.start();
  await stage.flowing(50);
  await stage.verdict();
});

faultTest("Redis Cluster: the stream's slot moves to another master: nothing is lost, and no client is notified", async (stage) => {
  const group = await setUp(stage, { route: stage.sticky });
  const slot = await group.slotOf("roomcast:events");
  for (let round = 0; round < 2; round += 1) {
    await stage.flowing(60);
    await group.migrate(slot);
  }
  await stage.flowing(100);
  await stage.verdict();
  await stage.assertNothingLost();
  stage.assertNobodyDisconnected();
});
