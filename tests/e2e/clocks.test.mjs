// Metrics of nodes whose clocks differ, and series that exist before their first event.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

// libfaketime moves the clock of one process.
const library = spawnSync("sh", ["-c", "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null"], { encoding: "utf8" }).stdout.trim();
const shifted = (seconds) => ({
  LD_PRELOAD: library, FAKETIME: `${seconds > 0 ? "+" : ""}${seconds}s`, FAKETIME_DONT_FAKE_MONOTONIC: "1", DONT_FAKE_MONOTONIC: "1",
});
const lag = (node) => node.metric("roomcast_tail_lag_seconds");
const sum = (node) => node.metric("roomcast_publish_to_write_seconds_sum");
const count = (node) => node.metric("roomcast_publish_to_write_seconds_count");

suite("clocks and series", () => {
  for (const seconds of [300, -300]) {
    scenario(`a node whose clock is ${seconds} s off reports the right lag, and so does a node that receives from it`, async ({ node, redis, ws }) => {
      const { url } = await redis();
      const wrong = await node({ redis: { url } }, { env: shifted(seconds) });
      const right = await node({ redis: { url } });
      const clock = async (one) => Math.round((Date.parse((await one.get("/health/live")).json().timestamp) - Date.now()) / 60_000) + 0;
      assert.deepEqual([await clock(wrong), await clock(right)], [seconds / 60, 0], "the clock is moved");
      const clients = [];
      for (const one of [wrong, right]) {
        const exp = Math.floor(Date.now() / 1000) + 7200;
        clients.push(await ws(one, { token: tokenFor("7", { exp }) }).welcomed());
      }
      let number = 0;
      for (const volatile of [false, true]) {
        for (const one of [wrong, right]) {
          await published(one, { room: "user:7", event: `e${(number += 1)}`, data: 1, volatile });
          await Promise.all(clients.map((client) => client.event(`e${number}`)));
        }
      }
      for (const one of [wrong, right]) {
        await until(async () => (await count(one)) >= 4, "four writes counted");
        assert.ok((await lag(one)) < 20, `lag ${await lag(one)}`);
        assert.ok((await sum(one)) < 60, `publish to write ${await sum(one)}`);
      }
    }, { skip: !library && "libfaketime is missing" });
  }

  scenario("the embedded log raises no alert, and an event without receivers is not counted as written", async ({ node, ws }) => {
    const one = await node();
    assert.equal(await one.metric("roomcast_redis_up"), 1);
    await published(one, { room: "room:nobody", event: "e", data: 1 });
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    await published(one, { room: "user:7", event: "e", data: 1 });
    await client.event("e");
    await until(async () => (await count(one)) === 1, async () => `one write; got ${await count(one)}`);
  });

  scenario("every series exists from the start", async ({ node }) => {
    const { text } = await (await node()).get("/metrics");
    for (const series of [
      'roomcast_connections{protocol="ws",transport="websocket"} 0',
      'roomcast_handshakes_total{result="token_expired"} 0',
      'roomcast_handshakes_total{result="ok"} 0',
      'roomcast_recoveries_total{result="recovered"} 0',
      'roomcast_gaps_total{reason="log_reset"} 0',
      'roomcast_backend_requests_total{result="timeout",type="event"} 0',
      'roomcast_backend_request_seconds_count{type="join"} 0',
      'roomcast_events_refused_total{reason="no_rule",source="client"} 0',
      'roomcast_events_refused_total{reason="bad_json",source="http"} 0',
      "roomcast_log_lines_dropped_total 0",
    ]) {
      assert.ok(text.includes(`${series}\n`), series);
    }
  });
});
