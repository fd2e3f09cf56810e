// /health, /health/live, /socket/ping and /metrics, and what must never be logged.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { assertError, command, publish, published } from "../harness/publish.mjs";
import { post, request } from "../harness/http.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { now, tokenFor } from "../harness/token.mjs";

const NAMES = `build_info connections sessions rooms handshakes_total closes_total events_total events_refused_total deliveries_total
  drops_total recoveries_total gaps_total publish_to_write_seconds_bucket tail_lag_seconds redis_up redis_reconnects_total outbox_bytes
  backend_requests_total backend_request_seconds`.split(/\s+/);
// These have no series until something has happened.
const LATER = new Set(["events_refused_total", "recoveries_total", "gaps_total", "backend_requests_total", "backend_request_seconds"]);

suite("health and metrics", () => {
  scenario("/health has every field of its reference, without Redis", async ({ node }) => {
    const one = await node();
    const answer = await one.get("/health");
    const { timestamp, uptime_seconds: uptime, version, ...rest } = answer.json();
    assert.match(answer.headers["content-type"], /^application\/json/);
    assert.deepEqual(rest, { status: "ok", service: "roomcast", services: { redis: { status: "disabled" }, socket: { status: "ready" } } });
    assert.match(timestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
    assert.ok(Math.abs(Date.parse(timestamp) - Date.now()) < 10_000);
    assert.ok(uptime >= 0 && uptime < 60);
    assert.match(version, /^\d+\.\d+\.\d+/);
    assert.equal((await one.get("/health/live")).status, 200);
    for (const path of ["/health", "/health/live", "/socket/ping", "/metrics"]) {
      await until(async () => (await request(one.url + path, { method: "HEAD" })).status === 200, `HEAD ${path}`);
      assertError(await request(one.url + path, { method: "POST" }), 405);
    }
  });

  scenario("/socket/ping answers with its round trip and counts", async ({ node, io, ws }) => {
    const one = await node();
    await io(one, { token: tokenFor("7"), transports: ["websocket"] }).connected();
    await (await ws(one, { token: tokenFor("8") }).welcomed()).join("room:a");
    const ping = await until(() => one.answers("/socket/ping"), "a probe that goes through");
    const { round_trip_ms: trip, ...rest } = ping.json();
    assert.deepEqual(rest, { status: "live", connections: 2, rooms: 3 });
    assert.ok(trip >= 0 && trip < 5000);
  });

  scenario("/metrics has every name of its reference, right counts, and no room, user or session in a label", async ({ node, io, ws, sse }) => {
    const one = await node();
    const socket = await io(one, { token: tokenFor("secretuser"), transports: ["websocket"] }).connected();
    const polling = await io(one, { token: tokenFor("secretuser"), transports: ["polling"] }).connected();
    const plain = await (await ws(one, { token: tokenFor("secretuser") }).welcomed()).join("room:secretroom");
    const stream = await sse(one, { token: tokenFor("secretuser"), rooms: ["room:secretroom", "user:secretuser"] }).answered();
    await published(one, { room: "user:secretuser", event: "secretevent", data: 1 });
    await Promise.all([socket, polling, plain, stream].map((client) => client.event("secretevent")));
    await publish(one, { room: "", event: "secretevent" });
    await socket.ask("secretevent");
    for (const protocol of ["socketio", "ws", "sse"]) {
      await until(async () => (await one.metric(`roomcast_deliveries_total{protocol="${protocol}"}`)) > 0, `a delivery by ${protocol}`);
    }
    await one.metricIs('roomcast_events_refused_total{reason="bad_room",source="http"}', 1);
    const answer = await one.get("/metrics");
    assert.match(answer.headers["content-type"], /^text\/plain/);
    for (const name of NAMES.filter((each) => !LATER.has(each))) assert.match(answer.text, new RegExp(`^roomcast_${name}[ {]`, "m"));
    for (const name of ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"]) assert.ok(answer.text.includes(`\n${name} `));
    assert.match(answer.text, /^roomcast_build_info\{version="\d+\.\d+\.\d+[^"]*"\} 1$/m);
    assert.match(answer.text, /^# TYPE roomcast_publish_to_write_seconds histogram$/m);
    for (const word of ["secretuser", "secretroom", "secretevent", socket.socket.id, "room:"]) assert.ok(!answer.text.includes(word), word);
    assert.equal(await one.metric('roomcast_events_total{source="http"}'), 1);
    const series = answer.text.split("\n").filter((line) => line && !line.startsWith("#")).map((line) => line.split(" ")[0]);
    assert.equal(new Set(series).size, series.length, "each series once");
    for (const client of [socket, polling, plain, stream]) client.close();
    const open = async () => [...(await one.get("/metrics")).text.matchAll(/^roomcast_connections\{[^}]*\} (\d+)/gm)].map(([, value]) => value);
    await until(async () => (await open()).every((value) => value === "0"), "every connection counted as closed");
  });

  scenario("tokens, keys and payloads are never logged, at any level", async ({ node, io, ws, sse }) => {
    const one = await node({ log: { level: "trace", format: "json" } });
    const tokens = [tokenFor("7", { n: 1 }), tokenFor("7", { n: 2, exp: now() - 100 }), `${tokenFor("7", { n: 3 })}x`];
    await io(one, { query: { token: tokens[0] } }).connected();
    for (const token of tokens) {
      const plain = ws(one, { token });
      await until(() => plain.end ?? plain.messages[0], "an outcome");
      await sse(one, { token, rooms: ["room:a"] }).answered();
      await io(one, { query: { token }, transports: ["websocket"] }).connected().catch(() => {});
      await io(one, { token }).connected().catch(() => {});
      await request(`${one.url}/no/such/path?token=${token}`);
    }
    await published(one, { room: "user:7", event: "e", data: "a payload that must not be logged" });
    await command(one, "/publish", {}, { key: "a-wrong-key-that-is-secret" });
    // Then the whole log is there.
    await one.stop();
    assert.ok(one.output.length > 0);
    for (const secret of [...tokens, ...tokens.map((token) => token.split(".")[2]), "e2e-publish-key", "a-wrong-key-that-is-secret", "a payload that must not be logged"]) {
      assert.ok(!one.output.includes(secret), `${secret.slice(0, 30)}… is in the log`);
    }
    for (const line of one.output.trim().split("\n")) assert.doesNotThrow(() => JSON.parse(line), `a line of JSON: ${line}`);
  });

  scenario("admin_listen moves /metrics, /publish and the commands to its own address", async ({ node, io }) => {
    const admin = await freePort();
    const one = await node({ admin_listen: `127.0.0.1:${admin}` });
    const client = await io(one, { token: tokenFor("7") }).connected();
    const event = { room: "user:7", event: "e", data: 1 };
    assertError(await publish(one, event), 404);
    assertError(await command(one, "/join", { user: "7", rooms: ["a"] }), 404);
    assertError(await request(`${one.url}/metrics`), 404);
    const there = { url: `http://127.0.0.1:${admin}` };
    await published(there, event);
    await client.event("e");
    assert.equal((await request(`${there.url}/metrics`)).status, 200);
    assert.equal((await post(`${there.url}/socket.io/?EIO=4&transport=polling`, "")).status, 404);
  });
});
