// Every refusal is counted by reason and logged with what to change.
import assert from "node:assert/strict";
import fs from "node:fs";
import parser from "socket.io-msgpack-parser";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { post, request } from "../harness/http.mjs";
import { assertError, command, publish } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { sign, tokenFor } from "../harness/token.mjs";
import { cluster } from "../harness/trace.mjs";

/** Reasons that other files test, because they need more than a node. */
const ELSEWHERE = {
  tls: "e2e/tls", unread: "attacks/unread_answers", admin_ui: "e2e/admin_ui", cross_site: "e2e/console", sign_in: "e2e/console", proxy_header: "e2e/proxy_protocol", memory: "attacks/budgets",
};
const count = (node, reason) => node.metric(`roomcast_refusals_total{reason="${reason}"}`);
const bearer = { authorization: `Bearer ${KEY}` };
const plain = (text) => text.replaceAll(/\x1b\[[0-9;]*m/g, "");
const origin = "https://evil.example";

/** Waits until the reason was counted `times` times and a log line contains these texts. */
async function traced(node, reason, times, ...says) {
  await until(async () => (await count(node, reason)) === times, async () => `${times} of ${reason}; got ${await count(node, reason)}`);
  const lines = () => warnings(node, reason);
  await until(() => lines().some((line) => says.every((part) => line.includes(part))), () => `a line with ${says}; got ${lines().join("\n")}`);
}

const warnings = (node, reason) =>
  plain(node.output).split("\n").slice(0, -1).filter((line) => line.includes("refused: ") && !line.includes("more like this") && line.includes(`reason="${reason}"`));

suite("refusals", () => {
  scenario("every reason has its counter from the start, and a test", async ({ node }) => {
    const { text } = await (await node()).get("/metrics");
    const reasons = [...text.matchAll(/^roomcast_refusals_total\{reason="([a-z_]+)"\} 0$/gm)].map(([, reason]) => reason);
    assert.ok(reasons.length >= 28, `${reasons}`);
    for (const reason of reasons) {
      const file = new URL(`../${ELSEWHERE[reason] ?? "e2e/refusals"}.test.mjs`, import.meta.url);
      assert.ok(fs.readFileSync(file, "utf8").includes(`"${reason}"`), `no test of the reason ${reason} in ${file.pathname}`);
    }
  });

  // The reason, what the line says, the configuration, and how to get there.
  const CASES = [
    ["parser", ["127.0.0.1, a client of namespace /", "leave out the client's `parser` option"], {},
      async ({ io }, one) => io(one, { token: tokenFor("7"), parser, transports: ["websocket"] }).refused()],
    ["incomplete", ["127.0.0.1", "http.head_timeout"], { http: { head_timeout: "2s" } },
      async ({ raw }, one) => raw(one).write("GET / HTTP/1.1\r\nHost")],
    ["revocations", ["127.0.0.1 /revoke", "auth.max_revocations"], { auth: { max_revocations: 1 } },
      async (_, one) => {
        for (const user of ["7", "8"]) await command(one, "/revoke", { user });
      }],
    ["unauthenticated", ["127.0.0.1, a Socket.IO client", "socketio.connect_timeout"], { socketio: { connect_timeout: "2s" } },
      async ({ raw }, one) => (await raw(one).upgrade("/socket.io/?EIO=4&transport=websocket"))],
    ["unauthenticated", ["127.0.0.1, a /ws client", "socketio.connect_timeout"], { socketio: { connect_timeout: "2s" } },
      async ({ raw }, one) => (await raw(one).upgrade("/ws"))],
    ["slow_consumer", ["user 7, session ", "limits.outbox_bytes", "let it read faster"], { limits: { outbox_bytes: "1kB" } },
      async ({ raw }, one) => {
        const slow = raw(one);
        slow.socket.pause();
        slow.write(`GET /sse?token=${tokenFor("7")} HTTP/1.1\r\nHost: x\r\n\r\n`);
        await until(() => one.connections("sse"), "the stream");
        // More than the kernel's buffers take.
        while (!(await count(one, "slow_consumer"))) await publish(one, { room: "user:7", event: "e", data: "x".repeat(900_000) });
      }],
    ["not_ready", ["127.0.0.1 /ws", "this node is drained"], {},
      async ({ ws }, one) => {
        await command(one, "/drain", { over: "0s" });
        await until(async () => (await one.get("/ws")).status === 503, "clients refused");
      }],
    ["protocol", ["user 7, session ", "a binary frame on /ws"], {},
      async ({ ws }, one) => (await ws(one, { token: tokenFor("7") }).welcomed()).socket.send(Buffer.of(1))],
    ["host", ["127.0.0.1 /cluster", "host evil.example is not in http.allowed_hosts"], { http: { allowed_hosts: ["127.0.0.1"] } },
      async (_, one) => one.get("/cluster", { host: "evil.example" })],
    ["traces", ["127.0.0.1 /trace", "trace.max_open"], { trace: { max_open: 0 } }, async (_, one) => one.get("/trace?user=7", bearer)],
    ["traces", ["127.0.0.1 /trace", "trace.payloads"], {}, async (_, one) => one.get("/trace?room=a&payloads=true", bearer)],
    ["session", ["a WebSocket for a polling session that is over, or that another one is taking over"], {},
      async ({ raw }, one) => {
        const { sid } = JSON.parse((await one.get("/socket.io/?EIO=4&transport=polling")).text.slice(1));
        for (const socket of [raw(one), raw(one)]) await socket.upgrade(`/socket.io/?EIO=4&transport=websocket&sid=${sid}`);
      }],
  ];
  for (const [reason, says, config, act] of CASES) {
    scenario(`${reason}: ${says.at(-1)}`, async (s) => {
      const one = await s.node(config);
      await act(s, one);
      await until(async () => (await count(one, reason)) >= 1, async () => `${reason}; got ${await count(one, reason)}`);
      await until(() => warnings(one, reason).some((line) => says.every((part) => line.includes(part))), () => `a line with ${says}; got ${one.output}`);
      assert.ok(warnings(one, reason).every((line) => / WARN /.test(line) && /advice="/.test(line)), "says what to do");
    });
  }

  scenario("peer_busy: large long-polling requests for a node that does not take them", async (s) => {
    const [owner, other] = await cluster(s, 2, { socketio: { max_payload: "6MB" } });
    const path = "/socket.io/?EIO=4&transport=polling";
    const sids = await Promise.all(Array.from({ length: 5 }, async () => {
      const { sid } = JSON.parse((await owner.get(path)).text.slice(1));
      await post(`${owner.url}${path}&sid=${sid}`, `40${JSON.stringify({ token: tokenFor("7") })}`);
      assert.match((await owner.get(`${path}&sid=${sid}`)).text, /^40/);
      return sid;
    }));
    const send = (sid, text) => post(`${other.url}${path}&sid=${sid}`, `42["echo","${text}"]`);
    for (const sid of sids) assert.equal((await send(sid, "small")).status, 200);
    owner.signal("SIGSTOP");
    const answers = await Promise.all(sids.map((sid) => send(sid, "x".repeat(5_000_000)))).finally(() => owner.signal("SIGCONT"));
    assert.ok(answers.some(({ status, headers }) => status === 503 && headers["retry-after"] === "1"), answers.map(({ status }) => status).join());
    await until(async () => (await count(other, "peer_busy")) > 0, "the refusal counted");
    await until(() => warnings(other, "peer_busy").some((line) => line.includes("127.0.0.1 /socket.io/")), () => other.output);
  });

  scenario("answers to /publish are counted by status", async ({ node }) => {
    const one = await node({ publish: { max_body: "1kB" } });
    const answers = (status) => one.metric(`roomcast_publish_answers_total{status="${status}"}`);
    for (const status of ["200", "400", "401", "403", "405", "408", "413", "503", "other"]) assert.equal(await answers(status), 0);
    const { text } = await one.get("/metrics");
    assert.ok(text.includes('roomcast_publish_answers_total{status="503"} 0\n'));
    await publish(one, { room: "user:7", event: "e" });
    await publish(one, "{");
    await publish(one, {}, { key: "wrong" });
    await publish(one, "x".repeat(2_000));
    await one.get("/publish", bearer);
    // Refused for its head, before its path matters.
    await publish(one, { room: "user:7", event: "e" }, { headers: Object.fromEntries(Array.from({ length: 120 }, (_, n) => [`x-${n}`, "y"])) });
    for (const status of ["200", "400", "401", "405", "413", "other"]) await one.metricIs(`roomcast_publish_answers_total{status="${status}"}`, 1);
  });

  scenario("another origin is counted and logged on every transport", async ({ node, ws, sse }) => {
    const one = await node({ cors: { origins: ["https://app.example.com"] } });
    const token = tokenFor("7");
    assert.equal((await one.get("/socket.io/?EIO=4&transport=polling", { origin })).status, 403);
    await ws(one, { token, origin }).ended();
    await ws(one, { path: "/socket.io/?EIO=4&transport=websocket", origin }).ended();
    await sse(one, { token, rooms: ["room:a"], headers: { origin } }).answered();
    await traced(one, "origin", 4, `origin ${origin} is not in cors.origins`, "127.0.0.1 /ws");
  });

  scenario("a wrong or missing publish key, and no configured key, are counted and logged", async ({ node }) => {
    const one = await node();
    await publish(one, { room: "user:7", event: "e" }, { key: "a-wrong-key" });
    await publish(one, { room: "user:7", event: "e" }, { key: null });
    await one.get("/rooms/room:a", { authorization: "Bearer a-wrong-key" });
    await traced(one, "publish_key", 3, "publish.keys", "/publish");
    const closed = await node({ publish: { keys: [] } });
    await publish(closed, { room: "user:7", event: "e" });
    await traced(closed, "publish_key", 1, "no publish key is configured: set `publish.keys`");
  });

  scenario("a bad token is counted on every transport and logged with the setting to check", async ({ node, io, ws, sse }) => {
    const one = await node();
    const token = sign({ sub: "7", exp: 4_000_000_000 }, { key: "another secret of at least thirty-two bytes" });
    await io(one, { token }).refused();
    await ws(one, { token }).ended();
    await sse(one, { token, rooms: ["room:a"] }).answered();
    await traced(one, "token", 3, "the token's signature is wrong", "auth.secret");
    await io(one, {}).refused();
    await traced(one, "token", 4, "a token is needed", "auth.anonymous");
  });

  scenario("a refused room, an event without a rule and an unknown namespace are logged with their client", async ({ node, io, ws, sse }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("7") }).connected();
    await client.ask("sneak", "x");
    await (await ws(one, { token: tokenFor("8") }).welcomed()).ask({ type: "join", room: "user:7" });
    await sse(one, { token: tokenFor("9"), rooms: ["closed:1"] }).answered();
    await traced(one, "room", 3, "user 8", "room user:7", "[[rooms]]");
    await client.ask("nonsense");
    await client.ask("say", "elsewhere", "x");
    await traced(one, "event", 2, "user 7", 'no [[on]] rule has event "nonsense" in namespace "/"');
    await io(one, { token: tokenFor("7"), namespace: "/admin" }).refused();
    await traced(one, "namespace", 1, "/admin is not in socketio.namespaces");
  });

  scenario("exceeded rates, sizes and headers, and malformed bytes, are counted and logged", async ({ node, ws, raw }) => {
    const one = await node({ limits: { events_per_second: 5, rooms_per_session: 10 }, publish: { max_body: "1kB" }, socketio: { max_payload: "1kB" } });
    const fast = await ws(one, { token: tokenFor("7") }).welcomed();
    for (let number = 0; number < 200; number += 1) fast.send({ type: "event", event: "echo", id: number });
    await until(async () => (await count(one, "rate")) > 0, "a refusal by rate");
    await until(() => /refused: .*limits\.events_per_second/.test(plain(one.output)), "a line that names the limit");
    const large = await ws(one, { token: tokenFor("7") }).welcomed();
    large.send({ type: "event", event: "e", data: "x".repeat(2_000) });
    await large.ended();
    await traced(one, "size", 1, "socketio.max_payload", "user 7");
    const small = raw(one);
    small.write("POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer e2e-publish-key-0123456789\r\nContent-Length: 2000\r\n\r\n");
    await small.head();
    await traced(one, "size", 2, "publish.max_body", "/publish");
    const headers = raw(one);
    headers.write(`GET / HTTP/1.1\r\nHost: x\r\n${"a: b\r\n".repeat(500)}\r\n`);
    await headers.untilClosed();
    await traced(one, "headers", 1, "headers");
    const broken = raw(one);
    await broken.upgrade("/socket.io/?EIO=4&transport=websocket");
    broken.sendText("x");
    await broken.closeCode();
    await traced(one, "protocol", 1, "break the protocol");
  });

  scenario("refused handshakes, transports, sessions, paths, requests and connections are counted and logged", async ({ node, sse }) => {
    const one = await node({ socketio: { transports: ["websocket"] }, limits: { connections_per_ip: 1 } });
    await one.get("/socket.io/?EIO=4&transport=polling");
    await traced(one, "transport", 1, "socketio.transports");
    await one.get("/ws");
    await traced(one, "handshake", 1, "WebSocket");
    await request(`${one.url}/nowhere?token=${tokenFor("7")}`);
    await traced(one, "path", 1, "/nowhere");
    await publish(one, "{");
    await publish(one, { events: [{ event: "without a room" }] });
    await traced(one, "request", 2, "/publish", "bad_json");
    await sse(one, { token: tokenFor("7"), rooms: ["room:a"] }).answered();
    await sse(one, { token: tokenFor("7"), rooms: ["room:a"] }).answered();
    await traced(one, "connections", 1, "limits.connections_per_ip");
    const polling = await node();
    await post(`${polling.url}/socket.io/?EIO=4&transport=polling&sid=nonsense`, "2");
    await traced(polling, "session", 1, "session");
    await polling.get("/socket.io/?EIO=3&transport=polling");
    await traced(polling, "handshake", 1, "EIO");
  });

  scenario("a stream without a room is counted and logged", async ({ node }) => {
    const one = await node({ rooms: [{ match: "room:<name>", join: "allow" }] });
    assertError(await one.get("/sse", { authorization: `Bearer ${tokenFor("7")}` }), 400, "no_room");
    await traced(one, "request", 1, "/sse", "names no room", "[[rooms]]");
  });

  scenario("a refusal of the backend is logged without the backend's message", async ({ node, io, serve }) => {
    const backend = serve(await startBackend());
    backend.answer = ({ type }) => (type === "join" ? { allow: false, error: "a payload nobody may read" } : { error: "a payload nobody may read" });
    const rules = {
      rooms: [{ match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "ask" }],
      on: [{ event: "join", join: "room:{0}" }, { event: "send", forward: true }],
    };
    const one = await node({ ...backend.config(), ...rules });
    const client = await io(one, { token: tokenFor("7") }).connected();
    await client.ask("join", "a");
    await client.ask("send", "a payload nobody may read");
    await traced(one, "backend", 2, "the backend refuses event", "user 7");
    assert.ok(!one.output.includes("nobody may read"));
  });

  scenario("repeated refusals are counted, but not all logged", async ({ node }) => {
    const one = await node();
    for (let number = 0; number < 60; number += 1) await publish(one, {}, { key: "wrong" });
    await one.metricIs('roomcast_refusals_total{reason="publish_key"}', 60);
    // Once the first ten seconds are over, without another refusal.
    await until(() => /refused: 55 more like this.* reason="publish_key"/.test(plain(one.output)), () => one.output, 40_000);
    const lines = plain(one.output).split("\n").filter((line) => line.includes('reason="publish_key"'));
    assert.equal(lines.length, 6, one.output);
  });
});
