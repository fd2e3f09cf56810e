// Nodes killed with -9, one after the other; a balancer without sticky sessions leads their clients to the others.
import { SECONDS } from "../harness/random.mjs";
import { CALM, MIXED, faultTest } from "./stage.mjs";

faultTest("nodes killed with -9: every client is recovered on another node, and nothing is lost", async (stage) => {
  const redis = await stage.tools.redis();
  await stage.start(3, { redis, ...CALM });
  await stage.populate(MIXED);
  await stage.publish({ targets: [...stage.nodes, stage.balancer.proxy] });
  for (let round = 0; round < Math.max(2, SECONDS / 4); round += 1) {
    const victim = stage.nodes[round % 3];
    await stage.flowing(100);
    await victim.stop("SIGKILL");
    await stage.flowing(100);
    await stage.allReady();
    await stage.flowing(20);
    await stage.join(victim);
  }
  await stage.verdict();
  await stage.assertNothingLost();
});
