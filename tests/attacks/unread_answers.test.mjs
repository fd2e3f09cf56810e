// Requests whose answers nobody reads, on connections that have not proven anything.
import assert from "node:assert/strict";
import net from "node:net";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { witness } from "./witness.mjs";

const unread = (node) => node.metric('roomcast_refusals_total{reason="unread"}');
/** Requests in a row, for an answer that is large and costs the node nothing to make. */
const asking = (node, count) => `GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1:${node.port}\r\n\r\n`.repeat(count);
const ANSWERED = "HTTP/1.1 200";
/** Milliseconds that one who reads slowly takes at least: longer than the limit. */
const SLOW_FOR = 11_000;

/** A connection that asks again and again and reads nothing, until it is closed. */
function greedy(s, node) {
  const socket = net.connect({ port: node.port, host: "127.0.0.1" });
  socket.on("error", () => {});
  socket.pause();
  socket.write(asking(node, 1_000));
  return s.keep({ close: () => socket.destroy() });
}

scenario("clients that do not read their answers are closed after http.write_timeout, and one that reads slowly is not", async (s) => {
  const node = await s.node({ http: { write_timeout: "6s" } });
  const bystander = await witness(s, node);
  const count = 5;
  await bystander.during((async () => {
    for (let n = 0; n < count; n += 1) greedy(s, node);
    await until(async () => (await unread(node)) === count, () => `${count} connections that were closed`, 30_000);
  })());
  bystander.unharmed();
  // It takes a little again and again, for longer than the limit in all; more than the kernel holds for it.
  const slow = net.connect({ port: node.port, host: "127.0.0.1" });
  s.keep({ close: () => slow.destroy() });
  slow.on("error", () => {});
  slow.pause();
  let taken = 0;
  let rest = "";
  const sent = 300;
  slow.write(asking(node, sent));
  const began = Date.now();
  const take = () => {
    if (taken / sent > (Date.now() - began) / SLOW_FOR) return;
    const parts = (rest + (slow.read(slow.readableLength || undefined)?.toString("latin1") ?? "")).split(ANSWERED);
    taken += parts.length - 1;
    // A status line can be cut by the end of what has arrived.
    rest = parts.at(-1).slice(1 - ANSWERED.length);
  };
  const read = setInterval(take, 20);
  await until(() => taken >= sent, () => `${taken} answers of ${sent}`, 40_000).finally(() => clearInterval(read));
  assert.equal(await unread(node), count);
}, { timeout: 120_000 });
