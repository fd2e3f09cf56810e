// Clients that read nothing for a while: each is closed, returns, and has every event.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { only } from "../harness/balancer.mjs";
import { faultTest } from "./stage.mjs";

const BYTES = 50_000;

faultTest("clients that do not read are closed as slow_consumer and recovered, and nothing is lost", async (stage) => {
  const redis = await stage.tools.redis();
  // A long heartbeat timeout, so that the full outbox closes them.
  const socketio = { ping_interval: "1s", ping_timeout: "60s" };
  await stage.start(2, { redis, limits: { outbox_bytes: "500KB" }, publish: { max_event: "500KB" }, socketio });
  const [fast, slow] = stage.nodes;
  await stage.populate({ websocket: 4, upgrade: 2, ws: 4, sse: 4 }, { route: (_, index) => only(index % 2 ? slow : fast) });
  const stalled = stage.clients.filter(({ name }) => Number(name.split(" ")[1]) % 2);
  await stage.publish({ rate: 200, bytes: BYTES });
  const closed = () => slow.metric('roomcast_closes_total{reason="slow_consumer"}');
  for (const client of stalled) {
    client.patient = true;
    client.proxy.stall();
  }
  let now;
  await until(async () => (now = await closed()) >= stalled.length, () => `${stalled.length} slow consumers closed; ${now} are after ${stage.history.count("accepted")} events`, 60_000);
  for (const { proxy } of stalled) proxy.resume();
  await stage.flowing();
  await stage.verdict();
  await stage.assertNothingLost();
  assert.ok(stalled.every(({ connectedAt }) => connectedAt.length > 1), "every slow client returned");
});
