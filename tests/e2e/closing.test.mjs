// What a client sent before its connection closed is handled, or counted as a drop.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const UNHANDLED = 'roomcast_drops_total{reason="unhandled"}';
const MESSAGES = 20;

suite("messages before a close", () => {
  for (const transport of ["websocket", "polling"]) {
    scenario(`${transport}: over the rate limit, each message of a client that disconnects is delivered or counted`, async ({ node, io }) => {
      const one = await node({ limits: { events_per_second: 1, rooms_per_session: 3 } });
      const receiver = await io(one, { token: tokenFor("8"), transports: ["websocket"] }).connected();
      await receiver.join("room:a");
      assert.equal(await one.metric(UNHANDLED), 0);
      const sender = await io(one, { token: tokenFor("7"), transports: [transport] }).connected();
      await sender.join("room:a");
      // The burst takes some of them, and the others wait.
      for (let n = 0; n < MESSAGES; n += 1) sender.socket.emit("say", "a", n);
      const known = async () => receiver.events.length + (await one.metric(UNHANDLED));
      await until(() => receiver.events.length > 0, "the first messages");
      sender.socket.disconnect();
      await until(async () => (await known()) === MESSAGES, async () => `${receiver.events.length} delivered, ${await one.metric(UNHANDLED)} counted`);
      assert.ok((await one.metric(UNHANDLED)) > 0, "some waited");
    });
  }
});
