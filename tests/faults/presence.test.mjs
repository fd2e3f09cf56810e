// Who is online, while the master of a Sentinel group, or of the stream's slot in a Cluster, dies or moves.
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

/** Two nodes, users 1 to 6 on them in turn, one with a connection to each, and a backend that is told. */
async function populate(s, url) {
  const backend = s.keep(await startBackend());
  const settings = { redis: { url }, presence: { grace: "500ms", lease: "3s" }, ...backend.config({ notify: ["online", "offline"] }) };
  const nodes = await Promise.all([s.node(settings), s.node(settings)]);
  const connect = async (id, node) => ({ id: String(id), io: await s.io(nodes[node], { token: tokenFor(String(id)), transports: ["websocket"] }).connected() });
  const clients = await Promise.all([1, 2, 3, 4, 5, 6].map((id) => connect(id, id % 2)));
  clients.push(await connect(1, 0));
  await backend.call("online", 6);
  return { backend, nodes, clients };
}

/** After the fault, who was there is there, who went is gone, who came is there: each told once. */
async function check({ backend, nodes, clients }) {
  for (const node of nodes) {
    for (const id of ["1", "2", "3", "4", "5"]) {
      await until(async () => (await status(node, id)).connections === (id === "1" ? 2 : 1), async () => `user ${id}`, 20_000);
    }
    await until(async () => (await status(node, "6")).online === false, "6 offline", 20_000);
  }
  await backend.call("offline");
  clients.at(-1).io.close();
  await until(async () => (await status(nodes[0], "1")).connections === 1, "one connection of user 1");
  const told = (type) => backend.of(type).map(({ user }) => user).sort();
  assert.deepEqual([told("online"), told("offline")], [["1", "2", "3", "4", "5", "6"], ["6"]]);
}

const goes = ({ clients }) => clients.find(({ id }) => id === "6").io.close();

describe("presence over a failover", () => {
  scenario("the master of a Sentinel group dies", async (s) => {
    const group = s.keep(await startSentinels());
    const stage = await populate(s, group.url);
    const failover = group.failover();
    goes(stage);
    await failover;
    await check(stage);
  }, { timeout: 90_000 });

  scenario("the master of a Sentinel group dies, and a replica that knew less takes its place", async (s) => {
    const group = s.keep(await startSentinels());
    const stage = await populate(s, group.url);
    await group.lag();
    goes(stage);
    await stage.backend.call("offline");
    const before = stage.backend.calls.length;
    await group.failover();
    for (const node of stage.nodes) {
      await until(async () => (await status(node, "6")).online === false && (await status(node, "1")).connections === 2, "what the nodes know", 20_000);
    }
    assert.deepEqual(stage.backend.calls.slice(before).map(({ type, user }) => `${type} ${user}`), [], "no news");
  }, { timeout: 90_000 });

  scenario("the slot of a Cluster loses its master, and moves", async (s) => {
    const group = s.keep(await startCluster());
    const stage = await populate(s, group.url);
    const slot = await group.slotOf("roomcast:events");
    await group.migrate(slot);
    await group.failover(slot);
    goes(stage);
    await check(stage);
  }, { timeout: 90_000 });
});
