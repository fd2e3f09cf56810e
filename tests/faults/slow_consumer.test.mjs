// Clients that read nothing for a while: each is closed, comes back, and has everything.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { only } from "../harness/balancer.mjs";
import { row } from "./stage.mjs";

const BYTES = 50_000;

row("slow consumers are closed and recover: nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  // A heartbeat that waits, so that it is the full outbox that closes them.
  const socketio = { ping_interval: "1s", ping_timeout: "60s" };
  await stage.start(2, { redis, limits: { outbox_bytes: "500KB" }, publish: { max_event: "500KB" }, socketio });
  const [fast, slow] = stage.nodes;
  await stage.populate({ websocket: 4, upgrade: 2, ws: 4, sse: 4 }, { route: (_, index) => only(index % 2 ? slow : fast) });
  const stalled = stage.clients.filter(({ name }) => Number(name.split(" ")[1]) % 2);
  await stage.publish({ rate: 200, bytes: BYTES });
  const closed = () => slow.metric('roomcast_closes_total{reason="slow_consumer"}');
  for (const client of stalled) {
    client.patient = true;
    client.line.stall();
  }
  let now;
  await until(async () => (now = await closed()) >= stalled.length, () => `${stalled.length} slow consumers closed; ${now} are after ${stage.ledger.count("accepted")} events`, 30_000);
  for (const { line } of stalled) line.resume();
  await stage.flowing();
  await stage.verdict();
  await stage.assertNothingLost();
  assert.ok(stalled.every(({ begins }) => begins.length > 1), "all came back");
});
