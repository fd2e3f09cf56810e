// Readers of GET /trace that do not read, and floods of what they follow, harm nobody.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { Trace, cluster } from "../harness/trace.mjs";
import { witness } from "./witness.mjs";

suite("attacks: traces", () => {
  scenario("readers that do not read, of a user who sends all the time, cost memory of a bound and no time of others", async (s) => {
    const [one, other] = await cluster(s, 2, { trace: { max_time: "6s", lines_per_second: 200, bytes_per_second: "1MB" } });
    const bystander = await witness(s, one, { publisher: other });
    const before = await one.metric("process_resident_memory_bytes");
    const stuck = Array.from({ length: 4 }, () => {
      const socket = s.raw(one);
      socket.socket.pause();
      socket.write(`GET /trace?user=loud HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${KEY}\r\n\r\n`);
      return socket;
    });
    const reader = await s.keep(new Trace(other, { user: "loud" })).opened(2);
    const loud = await s.ws(other, { token: tokenFor("loud") }).welcomed();
    const flood = (async () => {
      const end = Date.now() + 4_000;
      let number = 0;
      // However slow this process is: many at once, more than the traces may show in a second.
      for (let n = 0; n < 500; n += 1) loud.send({ type: "event", event: "e".repeat(100), data: (number += 1) });
      while (Date.now() < end) {
        for (let n = 0; n < 5; n += 1) loud.send({ type: "event", event: "e".repeat(100), data: (number += 1) });
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return number;
    })();
    const sent = await bystander.during(flood);
    bystander.unharmed();
    await until(() => reader.all({ type: "refused", user: "loud" }).length > 0, () => `a trace of ${sent} messages`);
    await until(async () => (await one.metric("roomcast_trace_skipped_total")) + (await other.metric("roomcast_trace_skipped_total")) > 0, "lines that are skipped");
    const grown = (await one.metric("process_resident_memory_bytes")) - before;
    assert.ok(grown < 100e6, `${Math.round(grown / 1e6)} MB more`);
    await until(async () => (await one.metric("roomcast_traces")) === 0, "the traces end by themselves", 15_000);
    await until(() => stuck.every(({ socket }) => socket.resume() && socket.closed), "their connections are cut", 15_000);
  });
});
