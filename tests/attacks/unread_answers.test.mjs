// Requests whose answers nobody reads, on connections that have not proven anything.
import assert from "node:assert/strict";
import net from "node:net";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { witness } from "./witness.mjs";

const unread = (node) => node.metric('roomcast_refusals_total{reason="unread"}');

/** A connection that asks again and again and reads nothing, until it is closed. */
function greedy(s, node) {
  const socket = net.connect({ port: node.port, host: "127.0.0.1" });
  socket.on("error", () => {});
  socket.pause();
  const request = `GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:${node.port}\r\n\r\n`;
  socket.write(request.repeat(1_000));
  return s.keep({ close: () => socket.destroy() });
}

scenario("clients that do not read their answers are closed after http.write_timeout, and one that reads slowly is not", async (s) => {
  const node = await s.node({ http: { write_timeout: "1s" } });
  const bystander = await witness(s, node);
  const count = 5;
  await bystander.during((async () => {
    for (let n = 0; n < count; n += 1) greedy(s, node);
    await until(async () => (await unread(node)) === count, () => `${count} connections that were closed`);
  })());
  bystander.unharmed();
  // It takes something every 300 ms: longer than the limit in all.
  const slow = net.connect({ port: node.port, host: "127.0.0.1" });
  s.keep({ close: () => slow.destroy() });
  slow.on("error", () => {});
  slow.pause();
  let taken = 0;
  const sent = 100;
  slow.write(`GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:${node.port}\r\n\r\n`.repeat(sent));
  const read = setInterval(() => (taken += slow.read(slow.readableLength || undefined)?.toString().split("HTTP/1.1 200").length - 1 || 0), 20);
  await until(() => taken >= sent, () => `${taken} answers of ${sent}`, 20_000);
  clearInterval(read);
  assert.equal(await unread(node), count);
});
