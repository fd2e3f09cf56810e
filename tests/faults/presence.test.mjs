// Presence while the master of a Sentinel group, or of the stream's slot in a Cluster, is killed or moves.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { startCluster } from "../harness/redis_cluster.mjs";
import { startSentinels } from "../harness/sentinel.mjs";

const status = async (node, id) => {
  const answer = await node.get(`/users/${id}`, { authorization: `Bearer ${KEY}` });
  return answer.status === 200 ? answer.json() : { status: answer.status };
};

// No node dies here: the lease is longer than a failover may take, and the grace period than one node may be back after the other.
/** Two nodes, users 1 to 6 on them in turn, one of them with a connection to each node, and a backend that is notified. */
async function populate(s, url) {
  const backend = s.keep(await startBackend());
  const settings = { redis: { url }, presence: { grace: "2s", lease: "30s" }, ...backend.config({ notify: ["online", "offline"] }) };
  const nodes = await Promise.all([s.node(settings), s.node(settings)]);
  const connect = async (id, node) => ({ id: String(id), io: await s.io(nodes[node], { token: tokenFor(String(id)), transports: ["websocket"] }).connected() });
  const clients = await Promise.all([1, 2, 3, 4, 5, 6].map((id) => connect(id, id % 2)));
  clients.push(await connect(1, 0));
  await backend.call("online", 6);
  return { backend, nodes, clients };
}

/** After the fault, users 1 to 5 are online and user 6 is not, and the backend was notified once of each. */
async function check({ backend, nodes, clients }) {
  for (const node of nodes) {
    for (const id of ["1", "2", "3", "4", "5"]) {
      await until(async () => (await status(node, id)).connections === (id === "1" ? 2 : 1), async () => `user ${id}`, 40_000);
    }
    await until(async () => (await status(node, "6")).online === false, "6 offline", 40_000);
  }
  await backend.call("offline");
  clients.at(-1).io.close();
  await until(async () => (await status(nodes[0], "1")).connections === 1, "one connection of user 1");
  const notified = (type) => backend.of(type).map(({ user }) => user).sort();
  assert.deepEqual([notified("online"), notified("offline")], [["1", "2", "3", "4", "5", "6"], ["6"]]);
}

const disconnectUser6 = ({ clients }) => clients.find(({ id }) => id === "6").io.close();

describe("presence through a failover", () => {
  scenario("Sentinel: the master is killed: each user is online or offline as before, and announced once", async (s) => {
    const group = s.keep(await startSentinels());
    const stage = await populate(s, group.url);
    const failover = group.failover();
    disconnectUser6(stage);
    await failover;
    await check(stage);
  }, { timeout: 240_000 });

  scenario("Sentinel: a lagging replica is promoted: presence is restored, and nothing is announced again", async (s) => {
    const group = s.keep(await startSentinels());
    const stage = await populate(s, group.url);
    await group.lag();
    disconnectUser6(stage);
    await stage.backend.call("offline");
    const before = stage.backend.calls.length;
    await group.failover();
    for (const node of stage.nodes) {
      await until(async () => (await status(node, "6")).online === false && (await status(node, "1")).connections === 2, "presence as the nodes know it", 40_000);
    }
    assert.deepEqual(stage.backend.calls.slice(before).map(({ type, user }) => `${type} ${user}`), [], "nothing is announced again");
  }, { timeout: 240_000 });

  scenario("Redis Cluster: the slot moves and its master is killed: each user is online or offline as before, and announced once", async (s) => {
    const group = s.keep(await startCluster());
    const stage = await populate(s, group.url);
    const slot = await group.slotOf("roomcast:events");
    await group.migrate(slot);
    await group.failover(slot);
    disconnectUser6(stage);
    await check(stage);
  }, { timeout: 240_000 });
});
