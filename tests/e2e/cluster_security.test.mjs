// What nodes accept from each other through Redis, and which rights in Redis they and backends need.
import assert from "node:assert/strict";
import fs from "node:fs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodeNames, nodesOn, reconnected, recorded, toUser } from "../harness/sessions.mjs";
import { redisClients } from "../harness/socketio_server.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };

/** How many sessions a node counts in a room of the cluster. */
async function connectionsIn(node, room) {
  const answer = await request(`${node.url}/rooms/${room}`, { headers: { authorization: `Bearer ${KEY}` } });
  return answer.json().connections;
}

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
    const names = await until(async () => {
      const names = await nodeNames(store);
      return names.length === 2 && names;
    }, "two nodes");
    for (const name of names) await store.cli("PUBLISH", `roomcast:node:${name}`, `${"0".repeat(64)}{"from":"${name}"}`);
    const refused = async (node) => (await node.metric('roomcast_drops_total{reason="malformed"}')) === 1;
    await until(async () => (await refused(a)) && (await refused(b)), "refused by both nodes");
    await published(a, toUser("volatile", 1, { volatile: true }));
    assert.deepEqual(await client.event("volatile"), [1]);
  });

  scenario("a message between nodes that is published again is ignored, also on another node's channel", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const [publisher, spy] = await redisClients(store.url, 2);
    s.serve({ close: () => Promise.all([publisher, spy].map((client) => client.destroy())) });
    const heard = [];
    await spy.pSubscribe("roomcast:node:*", (message, channel) => heard.push({ message, channel, ...JSON.parse(message.slice(64)) }));
    await s.io(b, { token, ...WEBSOCKET }).connected();
    const members = () => connectionsIn(a, "user:7");
    await until(async () => (await members()) === 1, "the nodes ask each other");
    const asked = await until(() => heard.find(({ body }) => body.ask?.[1].members), "the question");
    const dropped = (node, reason) => node.metric(`roomcast_drops_total{reason="${reason}"}`);
    const channels = () => [...new Set(heard.map(({ channel }) => channel))];
    const answers = () => heard.filter(({ body }) => body.answer?.[0] === asked.body.ask[0]).length;
    await until(() => channels().length === 2 && answers() === 1, "the answer");
    for (const channel of channels()) await publisher.publish(channel, asked.message);
    await until(async () => (await dropped(a, "replayed")) + (await dropped(b, "replayed")) === 1, "the repetition is not read");
    await until(async () => (await dropped(a, "malformed")) + (await dropped(b, "malformed")) === 1, "it is for the other node");
    assert.equal(await members(), 1);
    assert.equal(answers(), 1, "the request was answered once");
  });

  scenario("the key that signs messages between nodes is renewed, and no message is lost meanwhile", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    await s.io(b, { token, ...WEBSOCKET }).connected();
    const members = () => connectionsIn(a, "user:7");
    await until(async () => (await members()) === 1, "the nodes ask each other");
    const key = () => store.cli("GET", "roomcast:{roomcast:events}:seal");
    const first = await key();
    await store.cli("HSET", "roomcast:{roomcast:events}:keys", "since", "0");
    const after = async (condition) => {
      assert.equal(await members(), 1);
      return condition();
    };
    await until(() => after(async () => (await key()) !== first), "a new key signs");
    // A second more, in which each node learns of it.
    const end = Date.now() + 1_500;
    await until(() => after(() => Date.now() > end), "messages with the new key");
    for (const node of [a, b]) assert.equal(await node.metric('roomcast_drops_total{reason="malformed"}'), 0);
  });
});
