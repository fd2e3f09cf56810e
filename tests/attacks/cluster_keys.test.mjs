// Somebody writes other types into the keys that nodes share.
import assert from "node:assert/strict";
import { tokenFor } from "../harness/token.mjs";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

const P = "roomcast:{roomcast:events}:";

async function pair(s) {
  const store = await s.redis();
  const nodes = await Promise.all([1, 2].map(() => s.node({ redis: { url: store.url } })));
  const poison = async (key) => {
    await store.cli("DEL", P + key);
    await store.cli("LPUSH", P + key, "x");
  };
  const isRepaired = (key) => until(async () => (await store.cli("TYPE", P + key)) !== "list", `${key} without the other type`);
  return { store, nodes, poison, isRepaired };
}

/** Whether a client of one node that comes to the other is recovered there. */
async function moves(s, [from, to]) {
  const proxy = await s.proxy(from);
  const client = await s.io(proxy, { token: tokenFor("7"), transports: ["websocket"] }).connected();
  await published(from, { room: "user:7", event: "e" });
  await until(() => client.events.length === 1, "the event");
  proxy.target = to;
  client.socket.io.engine.close();
  await until(() => client.connects === 2, "the client again");
  return client.socket.recovered;
}

suite("keys of the cluster with other types", () => {
  for (const name of ["nodes", "seal", "keys", "features", "sessions"]) {
    scenario(`${name}: it is made anew, and sessions move from node to node`, async (s) => {
      const { store, nodes, poison, isRepaired } = await pair(s);
      const members = (await store.cli("ZRANGE", `${P}nodes`, "0", "-1")).split("\n");
      const keys = name === "sessions" ? members.map((node) => `sessions:${node}`) : [name];
      for (const key of keys) await poison(key);
      for (const key of keys) await isRepaired(key);
      await until(async () => (await store.cli("ZCARD", `${P}nodes`)) === "2", "both nodes");
      await until(() => moves(s, nodes), "a client that is recovered on another node");
      for (const node of nodes) assert.equal((await node.get("/health")).status, 200);
    });
  }

  scenario("a dead node's sessions: those of others are found", async (s) => {
    const { store, nodes, poison } = await pair(s);
    await poison("sessions:0000dead");
    await store.cli("ZADD", `${P}nodes`, String(Date.now()), "0000dead");
    assert.equal(await moves(s, nodes), true);
  });

  scenario("revocations: running nodes keep theirs again, and a node that starts lets clients in", async (s) => {
    const { store, nodes: [node], poison, isRepaired } = await pair(s);
    const revoke = (user) => command(node, "/revoke", { user });
    assert.equal((await revoke("7")).status, 200);
    await poison("revoked");
    const late = await s.node({ redis: { url: store.url } });
    await isRepaired("revoked");
    await s.io(late, { token: tokenFor("8") }).connected();
    await poison("revoked");
    await until(async () => (await revoke("9")).status === 200, "a revocation");
    await until(async () => (await store.cli("HEXISTS", `${P}revoked`, "u:7")) === "1", "the earlier one kept again");
  });

  scenario("heartbeats that are refused for long: /health says so", async (s) => {
    const { store, nodes: [node] } = await pair(s);
    await store.cli("ACL", "SETUSER", "default", "-zadd");
    const refused = await until(async () => {
      const answer = await node.get("/health");
      return answer.status === 503 && /heartbeats|ZADD/i.test(answer.json().services.redis.error ?? "") && answer;
    }, "/health answering 503 with the reason", 30_000);
    assert.equal(refused.json().status, "degraded");
    await store.cli("ACL", "SETUSER", "default", "+zadd");
    await until(() => node.answers("/health"), "/health answering 200");
  });
});
