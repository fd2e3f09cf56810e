// Clients that read nothing for a while: each is closed, comes back, and has everything.
import assert from "node:assert/strict";
import { until } from "../e2e/harness/deadline.mjs";
import { row } from "./stage.mjs";

row("slow consumers are closed and recover: nothing lost", async (stage) => {
  const redis = await stage.tools.redis();
  // A heartbeat that waits, so that it is the full outbox that closes them.
  await stage.start(1, { redis, limits: { outbox_bytes: "100KB" }, socketio: { ping_interval: "1s", ping_timeout: "60s" } });
  const [node] = stage.nodes;
  await stage.populate({ websocket: 3, upgrade: 2, ws: 3, sse: 3 });
  const slow = stage.clients.filter((_, index) => index % 2 === 0);
  await stage.publish({ rate: 200, bytes: 50_000 });
  const closes = () => node.metric('roomcast_closes_total{reason="slow_consumer"}');
  for (const { line } of slow) line.stall();
  await until(async () => (await closes()) >= slow.length, async () => `${slow.length} closed as slow consumers; ${await closes()} are`, 30_000);
  for (const { line } of slow) line.resume();
  await stage.flowing();
  await stage.verdict();
  await stage.assertNothingLost();
  assert.ok(slow.every(({ begins }) => begins.length > 1), "all came back");
});
