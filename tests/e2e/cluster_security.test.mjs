// What nodes accept from each other through Redis, and which rights in Redis they and backends need.
import assert from "node:assert/strict";
import fs from "node:fs";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodeNames, nodesOn, reconnected, recorded, toUser } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };

suite("cluster security", () => {
  scenario("with the rights of docs/redis.md a node can do everything here, and a backend cannot act as a node", async (s) => {
    const lines = fs.readFileSync(new URL("../../docs/redis.md", import.meta.url), "utf8").split("\n").filter((line) => line.startsWith("ACL SETUSER"));
    const store = await s.redis();
    for (const line of lines) await store.cli(...line.replace("PASSWORD", "secret").split(" "));
    const url = store.url.replace("redis://", "redis://roomcast:secret@");
    const [a, b] = await Promise.all([s.node({ redis: { url } }), s.node({ redis: { url } })]);
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, ...WEBSOCKET }).connected();
    assert.deepEqual((await command(b, "/join", { user: "7", rooms: ["room:x"] })).json(), { sessions: 1 });
    await recorded(store, "room:x");
    balancer.target = b;
    await a.stop("SIGKILL");
    await published(b, { room: "room:x", event: "missed", data: 1 });
    assert.equal(await reconnected(client, 2), true);
    assert.deepEqual(await client.event("missed"), [1]);
    await published(b, toUser("volatile", 1, { volatile: true, id: "v" }));
    await client.event("volatile");
    const backend = ["--user", "backend", "--pass", "secret", "--no-auth-warning"];
    assert.match(await store.cli(...backend, "XADD", "roomcast:events", "*", "room", "room:x", "event", "added"), /^\d+-\d+/);
    await client.event("added");
    for (const refused of [["GET", "roomcast:{roomcast:events}:seal"], ["PUBLISH", "roomcast:node:0", "x"], ["XRANGE", "roomcast:events", "-", "+"]]) {
      assert.match(await store.cli(...backend, ...refused).catch((error) => error.message), /NOPERM/);
    }
    assert.doesNotMatch(await store.cli("ACL", "LOG"), /^roomcast$/m);
  });

  scenario("a message between nodes without a valid signature is refused, and volatile events reach every node", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const client = await s.io(b, { token, ...WEBSOCKET }).connected();
    const names = await nodeNames(store);
    assert.equal(names.length, 2);
    for (const name of names) await store.cli("PUBLISH", `roomcast:node:${name}`, `${"0".repeat(64)}{"from":"${name}"}`);
    const refused = async (node) => (await node.metric('roomcast_drops_total{reason="malformed"}')) === 1;
    await until(async () => (await refused(a)) && (await refused(b)), "refused by both nodes");
    await published(a, toUser("volatile", 1, { volatile: true }));
    assert.deepEqual(await client.event("volatile"), [1]);
  });
});
