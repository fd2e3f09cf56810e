// Nodes that die without a word, one after the other; their clients move to the others through a balancer without stickiness.
import { SECONDS } from "../harness/random.mjs";
import { MIXED, row } from "./stage.mjs";

row("a node is killed with -9, clients move to another: all recovered, nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(3, { redis });
  await stage.populate(MIXED);
  await stage.publish({ targets: [...stage.nodes, stage.balancer.line] });
  for (let round = 0; round < Math.max(2, SECONDS / 4); round += 1) {
    const victim = stage.nodes[round % 3];
    await stage.flowing(100);
    await victim.stop("SIGKILL");
    await stage.flowing(100);
    await stage.everybodyReady();
    await stage.flowing(20);
    await stage.join(victim);
  }
  await stage.verdict();
  await stage.assertNothingLost();
});
