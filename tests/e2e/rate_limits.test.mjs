// Clients over `limits.events_per_second`: bursts within the other limits pass. Beyond them a client gets an error with when
// to retry, and only a client that does not stop is closed.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { Polling, SEPARATOR } from "../harness/engine.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const count = (length, item) => Array.from({ length }, (_, n) => item(n));
/** The defaults of the limits; the harness sets a rate that nobody reaches. */
const DEFAULT = { limits: { events_per_second: 50 } };
/** A burst of 256 + 4 × 10 messages. */
const SLOW = { limits: { events_per_second: 10 } };
const BURST = 296;
const TRANSPORTS = [["websocket"], ["polling"]];

/** The refusal that an acknowledgement or a message holds. */
function assertRetry({ code, message, retry_after_ms: retry }, atMost = 120_000) {
  assert.equal(code, "rate_limited");
  assert.ok(message.includes("events_per_second"), message);
  assert.ok(Number.isInteger(retry) && retry > 0 && retry < atMost, `${retry}`);
  return retry;
}

/** Emits all with acknowledgements and resolves with their first arguments, in order. */
const askAll = (client, events) => Promise.all(events.map((event) => client.ask(...event).then(([first]) => first)));

suite("bursts", () => {
  scenario("with the default limits, 250 rooms can be joined at each connection", async ({ node, io }) => {
    const one = await node(DEFAULT);
    for (const transports of [...TRANSPORTS, ["polling", "websocket"]]) {
      const client = io(one, { token, transports });
      const joined = [];
      client.socket.on("connect", () => joined.push(askAll(client, count(250, (n) => ["join", `${n}`]))));
      await client.connected();
      assert.deepEqual(await joined[0], count(250, () => ({ ok: true })));
      client.socket.io.engine.close();
      await until(() => joined[1], "the reconnect");
      assert.deepEqual(await joined[1], count(250, () => ({ ok: true })));
      assert.equal(client.disconnects.length, 1, String(transports));
      client.close();
    }
    assert.equal(await one.metric('roomcast_closes_total{reason="rate_limit"}'), 0);
  });

  scenario("/ws: 250 rooms can be joined at once", async ({ node, ws }) => {
    const one = await node(DEFAULT);
    const client = await ws(one, { token }).welcomed();
    for (let n = 0; n < 250; n += 1) client.send({ type: "join", room: `room:${n}` });
    await until(() => client.messages.filter(({ type }) => type === "joined").length === 250, () => `250 joins; ${client.end}`);
    assert.ok(!client.messages.some(({ type }) => type === "error"));
  });

  scenario("events that a client kept while it was offline are all handled, in order", async ({ node, io }) => {
    const one = await node({ limits: { events_per_second: 200 } });
    for (const transports of TRANSPORTS) {
      const client = io(one, { token, transports, autoConnect: false });
      for (let n = 0; n < 1_500; n += 1) client.socket.emit("echo", n);
      client.socket.connect();
      await until(() => client.argsOf("echoed").length >= 1_500, () => `1500 echoes; ${client.argsOf("echoed").length}`);
      assert.deepEqual(client.argsOf("echoed").flat(), count(1_500, (n) => n));
      assert.deepEqual([client.disconnects, client.argsOf("error")], [[], []]);
      client.close();
    }
  });
});

suite("beyond the rate", () => {
  scenario("acknowledgements have `rate_limited` and when to retry; a client that waits so long is served", async ({ node, io }) => {
    const one = await node(SLOW);
    let refusals = 0;
    for (const transports of TRANSPORTS) {
      const client = await io(one, { token, transports }).connected();
      const answers = await askAll(client, count(350, (n) => ["echo", n]));
      const isRefused = (answer) => answer?.error;
      // More than the burst pass where the machine takes its time.
      while (!answers.some(isRefused)) answers.push(...(await askAll(client, count(100, (n) => ["echo", n]))));
      const refused = answers.filter(isRefused);
      assert.ok(refused.length <= answers.length - BURST + 5, `${refused.length} of ${answers.length} refused`);
      refusals += refused.length;
      const retries = refused.map(({ error }) => assertRetry(error));
      const last = Date.now() + Math.max(...retries);
      await until(() => Date.now() >= last, "the time that the last refusal named", 60_000);
      assert.deepEqual(await client.ask("echo", "again"), ["again"]);
      assert.deepEqual(client.disconnects, [], String(transports));
      client.close();
    }
    assert.equal(await one.metric('roomcast_closes_total{reason="rate_limit"}'), 0);
    await one.metricIs('roomcast_events_refused_total{reason="rate_limited",source="client"}', refusals);
  });

  scenario("/ws: events, joins and leaves get an error with when to retry", async ({ node, ws }) => {
    const one = await node({ limits: { events_per_second: 1 } });
    const client = await ws(one, { token }).welcomed();
    for (let n = 0; n < 300; n += 1) client.send({ type: "event", event: "echo", data: n, id: n });
    assertRetry((await client.message(({ type, data }) => type === "ack" && data?.error)).data.error);
    for (const type of ["join", "leave"]) {
      // One may pass where a second has gone by meanwhile, and then the next does not.
      const error = await until(async () => {
        const answer = await client.ask({ type, room: "room:a" });
        return answer.type === "error" && answer;
      }, `a refused ${type}`);
      assertRetry(error);
    }
    assert.equal(client.end, undefined);
  });

  scenario("packets without an acknowledgement wait; when the queue is full, the client gets one `error` a burst", async ({ node, io, ws }) => {
    // So slow that none of this is over while the machine takes its time.
    const one = await node({ limits: { events_per_second: 1 } });
    const longest = 2_000_000;
    const client = await io(one, { token, transports: ["websocket"] }).connected();
    for (let n = 0; n < BURST + 1_024 + 500; n += 1) client.socket.emit("leave", `${n}`);
    const [{ error }] = await client.event("error");
    assertRetry(error, longest);
    const plain = await ws(one, { token }).welcomed();
    for (let n = 0; n < BURST + 1_024 + 500; n += 1) plain.send({ type: "event", event: "nothing" });
    const refusal = await plain.message(({ type, code }) => type === "error" && code === "rate_limited");
    assertRetry(refusal, longest);
    plain.send({ type: "join", room: "room:a", id: 1 });
    await plain.message(({ id }) => id === 1);
    assert.equal(plain.messages.filter(({ code, id }) => code === "rate_limited" && id === undefined).length, 1);
    assert.deepEqual([client.disconnects, client.argsOf("error").length, plain.end], [[], 1, undefined]);
  });

  scenario("a client that does not stop gets a reason and is closed, with 4429 on /ws", async ({ node, io, ws }) => {
    const one = await node(SLOW);
    const plain = await ws(one, { token }).welcomed();
    for (let n = 0; plain.end === undefined; n += 1) {
      plain.send({ type: "event", event: "echo", data: n, id: n });
      if (n % 1_000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(plain.end.code, 4429);
    const closing = plain.messages.find(({ type }) => type === "closing");
    assert.deepEqual([closing.reason, closing.retry_after_ms >= 1_000], ["rate_limit", true]);
    const client = await io(one, { token, transports: ["websocket"], reconnection: false }).connected();
    for (let n = 0; client.disconnects.length === 0; n += 1) {
      client.socket.emit("echo", n, () => {});
      if (n % 1_000 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(client.disconnects[0], "transport close");
    const [{ error }] = await client.event("error");
    assertRetry(error);
  });

  scenario("many packets in one payload count one by one", async ({ node }) => {
    const one = await node(SLOW);
    const polling = await new Polling(one).open();
    await polling.join({ token });
    await polling.post(count(400, (n) => `42${n}["leave","x"]`).join(SEPARATOR));
    let packets = "";
    await until(async () => (packets += SEPARATOR + (await polling.get()).text).includes("43399["), () => packets.slice(-200));
    assert.match(packets, /\x1e430\[\{"ok":true\}\]/);
    assert.match(packets, /\x1e43399\[\{"error":\{"code":"rate_limited","message":"[^"]+","retry_after_ms":\d+\}\}\]/);
  });
});
