// What others resume from belongs to all: floods of events and of dropped sessions cost only those who cause them.
import assert from "node:assert/strict";
import { bystander } from "../harness/bystander.mjs";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const recoveries = (node, result) => node.metric(`roomcast_recoveries_total{result="${result}"}`);

/** A client in a quiet room that has lost its connection, and does not come back by itself. */
async function away({ io }, node, name) {
  const client = await io(node, { token: tokenFor(name), ...WEBSOCKET }).connected();
  await client.join(`room:${name}`);
  await published(node, { room: `room:${name}`, event: "before", data: 1 });
  await client.event("before");
  client.socket.io.reconnection(false);
  client.socket.io.engine.close();
  await client.disconnected();
  await published(node, { room: `room:${name}`, event: "missed", data: 2 });
  return client;
}

async function comesBack(client) {
  client.socket.connect();
  await until(() => client.connects === 2, "connected again");
  assert.equal(client.socket.recovered, true, "the victim was not recovered");
  await client.event("missed");
}

scenario("a client's flood of large events costs only its own room the past", async (s) => {
  const node = await s.node({ recovery: { window_bytes: "2MB" } });
  const unharmed = await bystander(s, node);
  const victim = await away(s, node, "victim");
  const attacker = await s.io(node, { token: tokenFor("attacker"), ...WEBSOCKET }).connected();
  await attacker.join("room:loud");
  const loud = await away(s, node, "loud");
  const large = "x".repeat(200_000);
  for (let sent = 0; sent < 90; sent += 1) assert.deepEqual(await attacker.ask("say", "loud", large), [{ ok: true }]);
  await comesBack(victim);
  await unharmed();
  // Whoever was in the loud room has missed too much of it, and learns that.
  loud.socket.connect();
  await until(() => loud.connects === 2, "connected again");
  assert.equal(loud.socket.recovered, false);
  assert.deepEqual([await recoveries(node, "recovered"), await recoveries(node, "too_old")], [1, 1]);
});

scenario("dropped sessions of one user with large tokens evict nobody else's", async (s) => {
  const node = await s.node({ recovery: { window_bytes: "500kB" } });
  const unharmed = await bystander(s, node);
  const victim = await away(s, node, "victim");
  // The rooms of a token are kept with the session.
  const token = tokenFor("attacker", { rooms: Array.from({ length: 100 }, (_, n) => `room:${n}-${"x".repeat(40)}`) });
  const rooms = async () => node.metric("roomcast_sessions");
  const before = await rooms();
  for (let opened = 0; opened < 400; opened += 20) {
    const clients = Array.from({ length: 20 }, () => s.raw(node));
    await Promise.all(clients.map(async (client) => {
      await client.upgrade("/socket.io/?EIO=4&transport=websocket");
      client.sendText(`40${JSON.stringify({ token })}`);
      await client.text((text) => text.startsWith("40"));
      client.close();
    }));
  }
  await until(async () => (await node.connections("socketio")) === 1, "only the bystander is connected");
  let kept;
  await until(async () => (kept = (await rooms()) - before) < 300, () => `${kept} dropped sessions are kept`);
  await comesBack(victim);
  await unharmed();
});
