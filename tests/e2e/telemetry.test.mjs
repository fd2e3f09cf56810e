// OpenTelemetry: spans of an event's way over two nodes, the context handed to the backend, metrics, and receivers that are
// away. What is sent is read by the package that OpenTelemetry publishes (tests/harness/otlp.mjs).
import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { startBackend } from "../harness/backend.mjs";
import { stopwatch, until } from "../harness/deadline.mjs";
import { eventOf } from "../harness/lines.mjs";
import { startReceiver } from "../harness/otlp.mjs";
import { freePort } from "../harness/port.mjs";
import { publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const TRACE = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN = "00f067aa0ba902b7";
const TRACEPARENT = `00-${TRACE}-${SPAN}-01`;
const rooms = [{ match: "user:{user}", join: "auto" }];
const on = [
  { event: "send", forward: true },
  { event: "typing", emit: [{ room: "user:{user}", event: "user_typing", args: [], include_caller: true }] },
];
const exports = (node, signal, result) => node.metric(`roomcast_telemetry_exports_total{result="${result}",signal="${signal}"}`);
const drops = (node, reason) => node.metric(`roomcast_telemetry_dropped_total{reason="${reason}"}`);

async function receiver(s, status) {
  return s.serve(await startReceiver(status));
}

/** A server that takes connections and bytes, and never answers. */
async function silent(s) {
  const sockets = new Set();
  const server = net.createServer((socket) => sockets.add(socket.on("error", () => {}).resume()));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  s.serve({ close: () => (sockets.forEach((socket) => socket.destroy()), server.close()) });
  return { url: `http://127.0.0.1:${server.address().port}`, connections: () => sockets.size };
}

/** A backend that notes the headers of each webhook. */
async function backend(s) {
  const started = s.serve(await startBackend());
  started.headers = [];
  started.server.prependListener("request", (request) => started.headers.push(request.headers));
  return started;
}

suite("telemetry", () => {
  scenario("a publish with a traceparent gives spans of that trace on the node that was asked and on every node", async (s) => {
    const [store, otlp] = await Promise.all([s.redis(), receiver(s)]);
    const config = { redis: { url: store.url }, rooms, telemetry: { otlp_endpoint: `${otlp.url}/`, headers: ["Authorization=Bearer secret"], traces_sample_ratio: 0 } };
    const [one, two] = await Promise.all([s.node(config), s.node(config)]);
    const clients = await Promise.all([one, two, two].map((node) => s.ws(node, { token: tokenFor("7") }).welcomed()));
    const headers = { traceparent: TRACEPARENT, tracestate: "vendor=x" };
    const offset = await published(one, { room: "user:7", event: "hello", data: { secret: "payload" } }, { headers });
    await Promise.all(clients.map((client) => client.event("hello")));

    const [publishing] = await otlp.span("publish", TRACE);
    const [appending] = await otlp.span("append", TRACE);
    const deliveries = await otlp.span("delivery", TRACE, 2);
    assert.deepEqual([publishing.parent, publishing.kind, publishing.traceState], [SPAN, "SPAN_KIND_SERVER", "vendor=x"]);
    assert.equal(publishing.attributes["http.response.status_code"], 200);
    assert.deepEqual([appending.parent, appending.kind], [publishing.id, "SPAN_KIND_PRODUCER"]);
    assert.ok(appending.took <= publishing.took);
    assert.deepEqual(deliveries.map((span) => span.parent), [appending.id, appending.id]);
    assert.deepEqual(deliveries.map((span) => span.attributes["roomcast.receivers"]).sort(), [1, 2], "one span an event and node, with counts");
    assert.equal(new Set(deliveries.map((span) => span.resource["service.instance.id"])).size, 2);
    for (const span of deliveries) {
      assert.deepEqual([span.kind, span.traceState, span.attributes["roomcast.offset"]], ["SPAN_KIND_CONSUMER", "vendor=x", eventOf(offset)]);
      assert.deepEqual([span.attributes["roomcast.event"], span.resource["service.name"]], ["hello", "roomcast"]);
    }
    assert.ok(otlp.requests.every((request) => !request.unknown && request.headers.authorization === "Bearer secret"));
    const all = JSON.stringify(otlp.requests);
    for (const hidden of ["payload", "user:7", tokenFor("7")]) assert.ok(!all.includes(hidden), `${hidden} is in a span`);

    // What is not sampled is delivered and not recorded; what is no context is ignored.
    for (const traceparent of [`00-${"1".repeat(32)}-${SPAN}-00`, "nonsense", `00-${"0".repeat(32)}-${SPAN}-01`]) {
      await published(one, { room: "user:7", event: traceparent.slice(0, 8), data: 1 }, { headers: { traceparent } });
      await clients[2].event(traceparent.slice(0, 8));
    }
    await published(one, { events: [{ room: "user:7", event: "last", data: 1 }, { room: "nobody", event: "last", data: 2 }] }, { headers });
    await until(() => otlp.spans().filter((span) => span.attributes["roomcast.event"] === "last" && span.name === "delivery").length === 4, "four deliveries");
    assert.deepEqual([...new Set(otlp.spans().map((span) => span.trace))], [TRACE]);
  });

  scenario("a stream entry's traceparent, volatile events, and entries whose traceparent is malformed", async (s) => {
    const [store, otlp] = await Promise.all([s.redis(), receiver(s)]);
    const node = await s.node({ redis: { url: store.url }, rooms, telemetry: { otlp_endpoint: otlp.url, room_names: true } });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    const add = (event, traceparent) => store.cli("XADD", "roomcast:events", "*", "room", "user:7", "event", event, "data", "1", "traceparent", traceparent);
    await add("malformed", "00-zz");
    await add("traced", TRACEPARENT);
    await client.event("malformed");
    await client.event("traced");
    const [delivery] = await otlp.span("delivery", TRACE);
    assert.deepEqual([delivery.parent, delivery.attributes["roomcast.source"], delivery.attributes["roomcast.rooms"]], [SPAN, "stream", "user:7"]);
    const headers = { traceparent: TRACEPARENT.replace(TRACE, "a".repeat(32)) };
    await published(node, { room: "user:7", event: "volatile", data: 1, volatile: true }, { headers });
    const [volatile] = await otlp.span("delivery", "a".repeat(32));
    assert.equal(volatile.attributes["roomcast.event"], "volatile");
    assert.equal(await node.metric('roomcast_events_refused_total{source="stream",reason="bad_field"}'), 0);
  });

  scenario("webhooks get a child of the client's event, and notices a trace of their own", async (s) => {
    const [otlp, asked] = await Promise.all([receiver(s), backend(s)]);
    asked.answer = (call) => (call.type === "event" ? { ack: ["done"], emit: [{ room: "user:7", event: "made", args: [] }] } : { allow: true });
    const node = await s.node({ rooms: [...rooms, { match: "chat:<id>", join: "ask" }], on, ...asked.config({ notify: ["connect"] }), telemetry: { otlp_endpoint: otlp.url } });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    client.send({ type: "event", event: "send", data: 1, id: "1" });
    await client.event("made");
    client.send({ type: "event", event: "typing", data: 1, id: "2" });
    await client.event("user_typing");

    const webhook = await until(() => otlp.spans().find((span) => span.name === "webhook" && span.attributes["roomcast.event"] === "send"), () => `the webhook's span ${JSON.stringify(otlp.spans())}`);
    const [event] = (await otlp.span("client event", webhook.trace));
    assert.deepEqual([webhook.parent, webhook.kind, event.parent], [event.id, "SPAN_KIND_CLIENT", undefined]);
    const header = `00-${webhook.trace}-${webhook.id}-01`;
    await until(() => asked.headers.find((headers) => headers.traceparent === header), () => `${header} in ${JSON.stringify(asked.headers)}`);
    // What the backend answers with is of the same trace.
    const [delivery] = await otlp.span("delivery", webhook.trace);
    assert.equal(delivery.attributes["roomcast.event"], "made");

    await client.join("chat:1");
    const join = await until(() => otlp.spans().find((span) => span.attributes["roomcast.request"] === "join"), "the join's span");
    assert.equal((await otlp.span("client event", join.trace))[0].id, join.parent);

    const notice = await until(() => otlp.spans().find((span) => span.attributes["roomcast.request"] === "connect"), "the notice's span");
    assert.equal(notice.parent, undefined);
    assert.ok(asked.headers.some((headers) => headers.traceparent === `00-${notice.trace}-${notice.id}-01`));
    // An event that needs no backend.
    const typing = await until(() => otlp.spans().find((span) => span.name === "delivery" && span.attributes["roomcast.event"] === "user_typing"), "the relayed event");
    assert.equal((await otlp.span("client event", typing.trace))[0].attributes["roomcast.event"], "typing");
    assert.ok(otlp.requests.every((request) => !request.unknown));
  });

  scenario("`backend.stream` has the context as a field", async (s) => {
    const [store, otlp] = await Promise.all([s.redis(), receiver(s)]);
    const node = await s.node({ redis: { url: store.url }, rooms, on, backend: { stream: "inbox", notify: [] }, telemetry: { otlp_endpoint: otlp.url } });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    client.send({ type: "event", event: "send", data: 1, id: "1" });
    const [webhook] = await otlp.span("webhook");
    const entry = await until(async () => (await store.cli("XRANGE", "inbox", "-", "+")).split("\n").slice(1), "the entry");
    assert.equal(entry[entry.indexOf("traceparent") + 1], `00-${webhook.trace}-${webhook.id}-01`);
  });

  scenario("the metrics of /metrics arrive; the conventional variables of OpenTelemetry are read", async (s) => {
    const otlp = await receiver(s);
    const env = {
      OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
      OTEL_SERVICE_NAME: "chat-edge",
      OTEL_EXPORTER_OTLP_HEADERS: "authorization=Basic%20abc==,x-tenant=a",
      OTEL_TRACES_SAMPLER_ARG: "0.0",
    };
    const node = await s.node({ rooms, telemetry: { metrics_interval: "1s" } }, { env });
    await published(node, { room: "user:7", event: "e", data: 1 });
    await s.ws(node, { token: tokenFor("7") }).welcomed();
    const latest = (name) => otlp.metrics().findLast((metric) => metric.name === name);
    const pointOf = (metric, name, value) => (metric.sum ?? metric.gauge).dataPoints.find((point) => point.attributes?.some((pair) => pair.key === name && pair.value.stringValue === value));
    await until(() => latest("roomcast_sessions")?.gauge.dataPoints[0].asDouble === 1, () => `a session in ${JSON.stringify(latest("roomcast_sessions"))}`);
    const events = latest("roomcast_events_total");
    assert.deepEqual([events.sum.isMonotonic, events.sum.aggregationTemporality], [true, "AGGREGATION_TEMPORALITY_CUMULATIVE"]);
    assert.equal(pointOf(events, "source", "http").asDouble, 1);
    const { histogram } = latest("roomcast_backend_request_seconds");
    assert.equal(histogram.dataPoints[0].bucketCounts.length, histogram.dataPoints[0].explicitBounds.length + 1);
    // One source: whatever a scrape has is sent.
    const scraped = (await node.get("/metrics")).text.match(/^# TYPE \S+/gm).map((line) => line.slice(7));
    const unsent = () => {
      const sent = new Set(otlp.metrics().map((metric) => metric.name));
      return scraped.filter((name) => !sent.has(name));
    };
    await until(() => unsent().length === 0, () => `all metrics; not ${unsent()}`);
    const { headers, unknown } = otlp.requests[0];
    assert.deepEqual([events.resource["service.name"], headers.authorization, headers["x-tenant"], unknown], ["chat-edge", "Basic abc==", "a", false]);
    assert.equal(otlp.spans().length, 0, "the ratio is 0");
    const info = pointOf(latest("roomcast_node_info"), "node", events.resource["service.instance.id"]);
    assert.equal(info.asDouble, 1);
  });

  for (const [what, start] of [
    ["hangs", silent],
    ["is away", async () => ({ url: `http://127.0.0.1:${await freePort()}` })],
    ["answers 503", (s) => receiver(s, 503)],
    ["answers 400", (s) => receiver(s, 400)],
  ]) {
    scenario(`a receiver that ${what} costs nobody anything: what is over the queue is dropped and counted`, async (s) => {
      const otlp = await start(s);
      const telemetry = { otlp_endpoint: otlp.url, timeout: "300ms", queue: 20, metrics_interval: "1s" };
      const node = await s.node({ rooms, telemetry });
      const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
      const took = stopwatch();
      for (let n = 0; n < 100; n += 1) await published(node, { room: "user:7", event: `e${n}`, data: n });
      await client.event("e99");
      assert.ok(took() < 15_000, `publishing is not slowed: ${took()} ms; with each event's timeout it would be 30 s`);
      await until(async () => (await drops(node, "queue_full")) > 0 || (await drops(node, "export_failed")) > 0, "a dropped span");
      await until(async () => (await exports(node, "traces", "failed")) > 0 && (await exports(node, "metrics", "failed")) > 0, "failures that are counted");
      await until(async () => (await drops(node, "export_failed")) > 0, "spans that are given up");
      await node.says("telemetry is not taken");
      const warnings = node.output.split("\n").filter((line) => line.includes("telemetry is not taken"));
      assert.equal(warnings.length, 1, node.output);
      assert.equal((await node.get("/health")).status, 200);
    });
  }

  scenario("what waits is sent when the node stops", async (s) => {
    const otlp = await receiver(s);
    const node = await s.node({ rooms, telemetry: { otlp_endpoint: otlp.url } });
    await published(node, { room: "user:7", event: "last", data: 1 });
    await node.stop();
    // The receiver is a process of its own, whose last line may come after the node's end.
    await otlp.span("delivery");
  });

  scenario("off by default: nothing connects, and nothing is added to entries or webhooks", async (s) => {
    const [store, asked] = await Promise.all([s.redis(), backend(s)]);
    asked.answer = () => ({ ack: [] });
    const watched = http.createServer();
    let connections = 0;
    watched.on("connection", () => (connections += 1));
    await new Promise((resolve) => watched.listen(0, "127.0.0.1", resolve));
    s.serve({ close: () => watched.close() });
    const telemetry = { service_name: "named", headers: ["a=b"] };
    const node = await s.node({ redis: { url: store.url }, rooms, on, ...asked.config(), telemetry });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    const answer = await publish(node, { room: "user:7", event: "e", data: 1 }, { headers: { traceparent: TRACEPARENT } });
    assert.equal(answer.status, 200);
    await client.event("e");
    client.send({ type: "event", event: "send", data: 1, id: "1" });
    await asked.call("event");
    assert.equal(asked.headers[0].traceparent, undefined);
    assert.doesNotMatch(await store.cli("XRANGE", "roomcast:events", "-", "+"), /traceparent/);
    assert.equal((await exports(node, "traces", "ok")) + (await exports(node, "traces", "failed")) + (await exports(node, "metrics", "failed")), 0);
    assert.equal(connections, 0);
  });
});
