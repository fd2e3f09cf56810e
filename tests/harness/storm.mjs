// A node dies by kill -9 and all its clients come to another one at once.
import assert from "node:assert/strict";
import { until } from "./deadline.mjs";
import { published } from "./publish.mjs";
import { reconnected, records } from "./sessions.mjs";
import { tokenFor } from "./token.mjs";

const RESULTS = ["complete", "partial", "unavailable"];

/** How often a node has read the log again: `[complete, partial, unavailable]`. */
export const passes = async (node) => Promise.all(RESULTS.map((result) => node.metric(`roomcast_backfills_total{result="${result}"}`)));

/**
 * `count` clients of node `a` in `rooms` rooms, which have got an event each. `arrived` is called once they have. Then `a` is
 * killed, each room gets another event, and all clients come to `b`: each is recovered and has both, once. No pass over the
 * log was partial, and `maxPasses` is kept.
 */
export async function storm(s, store, [a, b], { count, rooms, maxPasses, arrived = () => {} }) {
  const balancer = await s.proxy(a);
  const publish = async (node, event) => {
    for (let room = 0; room < rooms; room += 1) await published(node, { room: `room:${room}`, event, data: room });
  };
  const clients = Array.from({ length: count }, (_, n) => s.io(balancer, { token: tokenFor(`u${n}`), transports: ["websocket"] }));
  await Promise.all(clients.map((client) => client.connected()));
  await Promise.all(clients.map((client, n) => client.join(`room:${n % rooms}`)));
  await publish(a, "first");
  await Promise.all(clients.map((client) => client.event("first")));
  await arrived();
  await until(async () => {
    const all = await records(store);
    return clients.every((_, n) => all.includes(`"user:u${n}"`));
  }, "a record of every session");
  balancer.target = b;
  await a.stop("SIGKILL");
  await publish(b, "missed");
  for (const client of clients) assert.equal(await reconnected(client, 2), true);
  for (const [n, client] of clients.entries()) {
    await client.event("missed");
    assert.deepEqual(["first", "missed"].map((name) => client.argsOf(name)), [[[n % rooms]], [[n % rooms]]]);
  }
  const [complete, partial, unavailable] = await passes(b);
  assert.ok(complete >= 1 && complete <= maxPasses, `${complete} passes`);
  assert.deepEqual([partial, unavailable], [0, 0]);
  await publish(b, "live");
  await Promise.all(clients.map((client) => client.event("live")));
}
