// Polling handshakes that never send a token.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const HANDSHAKE = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: x\r\n\r\n";

/** Handshakes on one TCP connection, one behind the other without waiting. */
async function flood(s, node, count) {
  const connection = s.raw(node);
  let answers = 0;
  connection.socket.removeAllListeners("data");
  connection.socket.on("data", (chunk) => (answers += chunk.toString("latin1").split("HTTP/1.1 200").length - 1));
  connection.write(HANDSHAKE.repeat(count));
  await until(() => answers >= count * 0.9 || connection.closed, () => `${answers} answers`, 30_000);
}

const polling = (node) => node.metric('roomcast_connections{protocol="socketio",transport="polling"}');
const newcomer = (s, node, user) => s.io(node, { token: tokenFor(user), transports: ["polling"] }).connected();

describe("handshakes without a token", { concurrency: 1 }, () => {
  scenario("one TCP connection keeps 64 of its 2,000, and newcomers are let in", async (s) => {
    const one = await s.node({ limits: { connections: 400, unauthenticated: 200 } });
    const bystander = await witness(s, one);
    await flood(s, one, 2_000);
    await until(async () => (await polling(one)) <= 64, "64 of them at most");
    await newcomer(s, one, "newcomer");
    await until(async () => (await one.metric('roomcast_closes_total{reason="evicted"}')) >= 1_900, "the others evicted");
    assert.equal(await one.metric('roomcast_refusals_total{reason="connections"}'), 0);
    bystander.unharmed();
  });

  scenario("those of many TCP connections close the oldest of them, and a newcomer is let in", async (s) => {
    const one = await s.node({ limits: { connections: 100 } });
    const bystander = await witness(s, one);
    await Promise.all(Array.from({ length: 20 }, () => flood(s, one, 30)));
    for (let n = 0; n < 5; n += 1) await newcomer(s, one, `${n}`);
    assert.ok((await polling(one)) <= 100);
    await until(async () => (await one.metric('roomcast_closes_total{reason="evicted"}')) >= 500, "the others evicted");
    bystander.unharmed();
  });

  scenario("they end with connect_timeout, and take nothing with them", async (s) => {
    const one = await s.node({ socketio: { connect_timeout: "1s" } });
    const bystander = await witness(s, one);
    await bystander.during(flood(s, one, 200));
    await until(async () => (await polling(one)) === 0, "the end of all");
    assert.ok(await one.metric('roomcast_closes_total{reason="connect_timeout"}'));
    bystander.unharmed();
  });
});
