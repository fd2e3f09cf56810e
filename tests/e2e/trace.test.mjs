// GET /trace and `roomcast trace`: what happens to one user, session or room, live, over all nodes, without payloads and tokens.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { KEY, configure, toml } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { post, request } from "../harness/http.mjs";
import { eventOf } from "../harness/lines.mjs";
import { BINARY, Daemon } from "../harness/node.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { sign, tokenFor } from "../harness/token.mjs";
import { Trace, cluster } from "../harness/trace.mjs";

const bearer = { authorization: `Bearer ${KEY}` };
const WEBSOCKET = { transports: ["websocket"] };
const SECRETS = "a payload nobody may read";

suite("Trace", () => {
  scenario("one user's handshakes, joins, events, refusals and closes are seen from another node", async (s) => {
    const [one, other] = await cluster(s, 2);
    const trace = await s.keep(new Trace(one, { user: "7" })).opened(2);
    const token = tokenFor("7");
    const client = await s.io(other, { token, ...WEBSOCKET }).connected();
    await (await s.io(other, { token: tokenFor("8"), ...WEBSOCKET }).connected()).join("room:a");
    const session = client.socket.id;
    const { node } = await trace.line({ type: "handshake", user: "7", namespace: "/", address: "127.0.0.1" });
    await trace.line({ type: "connected", node, user: "7", session, rooms: ["user:7"], protocol: "socketio", transport: "websocket" });
    await client.join("room:a");
    await trace.line({ type: "joined", session, rooms: ["room:a"], by: "rule" });
    await client.ask("echo", SECRETS);
    const bytes = JSON.stringify([SECRETS]).length;
    await trace.line({ type: "event_in", session, event: "echo", bytes });
    await trace.line({ type: "event_out", session, event: "echoed", bytes, outcome: "reply" });
    const offset = await published(one, { room: "room:a", event: "news", data: SECRETS });
    await trace.line({ type: "event_out", session, event: "news", rooms: ["room:a"], bytes, offset: eventOf(offset), outcome: "queued" });
    await published(one, { room: "room:a", except: ["user:7"], event: "not for 7", data: 1 });
    await trace.line({ type: "event_out", session, event: "not for 7", outcome: "excepted" });
    await client.ask("sneak", "x");
    await trace.line({ type: "refused", session, reason: "room", rooms: ["closed:x"], message: "no rule lets it into room closed:x; see [[rooms]], or the claim auth.rooms_claim of the token" });
    await trace.line({ type: "error", session, reason: "forbidden", rooms: ["closed:x"] });
    await client.ask("leave", "a");
    await trace.line({ type: "left", session, rooms: ["room:a"], by: "client" });
    await command(one, "/disconnect", { user: "7" });
    await trace.line({ type: "disconnected", session, reason: "disconnected" });
    assert.deepEqual(trace.lines.filter((line) => line.user !== undefined && line.user !== "7"), []);
    assert.ok(!trace.text.includes(SECRETS) && !trace.text.includes(token.split(".")[2]), "no payload and no token");
  });

  scenario("a token that is refused is seen under the user that it claims", async (s) => {
    const [one, other] = await cluster(s, 2);
    const trace = await s.keep(new Trace(one, { user: "7" })).opened(2);
    const expired = sign({ sub: "7", exp: 1_000_000_000 });
    await s.io(other, { token: expired, ...WEBSOCKET }).refused();
    const line = await trace.line({ type: "refused", user: "7", reason: "token", claimed: true });
    assert.match(line.message, /expired/);
    await s.ws(other, { token: sign({ sub: "8", exp: 4_000_000_000 }, { key: "another secret of at least thirty-two bytes" }) }).ended();
    await s.sse(one, { token: sign({ sub: "7", exp: 4_000_000_000 }, { key: "another secret of at least thirty-two bytes" }), rooms: ["room:a"] }).answered();
    await until(() => trace.all({ type: "refused", user: "7" }).length === 2, () => JSON.stringify(trace.lines));
    assert.ok(!trace.text.includes(expired.split(".")[2]));
  });

  scenario("a node that joins later takes part, and one that goes is said to have left", async (s) => {
    const store = await s.redis();
    const [one] = await nodesOn(s, store, 1);
    const trace = await s.keep(new Trace(one, { user: "7" })).opened(1);
    const [late] = await nodesOn(s, store, 1);
    await until(() => trace.all({ type: "node", status: "following" }).length === 2, () => JSON.stringify(trace.lines));
    const client = await s.ws(late, { token: tokenFor("7") }).welcomed();
    const { node } = await trace.line({ type: "connected", user: "7", protocol: "ws" });
    client.close();
    await trace.line({ type: "disconnected", user: "7", node });
    await late.stop();
    await trace.line({ type: "node", node, status: "left" });
    await s.ws(one, { token: tokenFor("7") }).welcomed();
    await until(() => trace.all({ type: "connected", user: "7" }).length === 2, () => JSON.stringify(trace.lines));
  });

  scenario("an outage of Redis is said, and the trace goes on after it", async (s) => {
    const store = await s.redis();
    const [one, other] = await cluster(s, 2, { redis: { url: store.url, timeout: "1s" } }, store);
    const trace = await s.keep(new Trace(one, { user: "7" })).opened(2);
    store.signal("SIGSTOP");
    const { node: silent } = await trace.line({ type: "node", status: "unreachable" }).finally(() => store.signal("SIGCONT"));
    await until(() => trace.all({ type: "node", node: silent, status: "following" }).length === 2, () => JSON.stringify(trace.lines));
    await s.ws(other, { token: tokenFor("7") }).welcomed();
    await trace.line({ type: "connected", user: "7", node: silent });
  });

  scenario("a session, and a room with who comes and goes and what it receives", async (s) => {
    const [one, other] = await cluster(s, 2);
    const clients = await Promise.all([one, one, other].map((node, n) => s.io(node, { token: tokenFor(`${n}`), ...WEBSOCKET }).connected()));
    const session = clients[0].socket.id;
    const [ofRoom, ofSession] = await Promise.all([{ room: "room:a" }, { session }].map((query) => s.keep(new Trace(other, query)).opened(2)));
    for (const client of clients) await client.join("room:a");
    await clients[1].join("room:b");
    // A node that is half a second late with its part has a line of its own: then once more.
    const event = await until(async () => {
      const offset = await published(one, { room: "room:a", event: "news", data: SECRETS });
      const event = await ofRoom.line({ type: "event", event: "news", offset: eventOf(offset) });
      return event.nodes_pending === undefined && event;
    }, "an event with the receivers of all nodes");
    assert.deepEqual([event.receivers, Object.values(event.nodes).toSorted(), event.args], [3, [1, 2], undefined]);
    assert.deepEqual(ofRoom.all({ type: "joined" }).map((line) => [line.user, line.rooms]).toSorted(), [["0", ["room:a"]], ["1", ["room:a"]], ["2", ["room:a"]]]);
    await ofSession.line({ type: "event_out", event: "news", session });
    assert.deepEqual(ofSession.lines.filter((line) => line.session && line.session !== session), []);
    assert.equal(ofRoom.all({ type: "event_out" }).length, 0);
  });

  scenario("a client that comes back is resumed, and what it missed is replayed", async (s) => {
    const one = await s.node();
    const trace = await s.keep(new Trace(one, { user: "7" })).opened();
    const client = await s.io(one, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    await client.join("room:a");
    await published(one, { room: "room:a", event: "before", data: 1 });
    await client.event("before");
    client.socket.io.engine.close();
    await trace.line({ type: "disconnected", reason: "transport_close", rooms: ["user:7", "room:a"] });
    await published(one, { room: "room:a", event: "missed", data: 1 });
    await client.event("missed");
    const { session } = await trace.line({ type: "resumed", rooms: ["user:7", "room:a"] });
    await trace.line({ type: "event_out", session, event: "missed", outcome: "replayed" });
  });

  scenario("who may trace, what, and how many at once", async (s) => {
    const one = await s.node({ trace: { max_open: 2 } });
    assertError(await one.get("/trace?user=7"), 401, "unauthorized");
    for (const bad of ["", "?user=", "?usr=7", "?session=x", "?user=7&payloads=maybe"]) assertError(await one.get(`/trace${bad}`, bearer), 400, "bad_query");
    assertError(await one.get("/trace?room=a&payloads=true", bearer), 403, "payloads_disabled");
    const first = await s.keep(new Trace(one, { user: "7" })).opened();
    await s.keep(new Trace(one, { user: "7" })).opened();
    assertError(await one.get("/trace?user=7", bearer), 429, "too_many_traces");
    await one.metricIs("roomcast_traces", 2);
    await one.metricIs('roomcast_refusals_total{reason="traces"}', 2);
    first.close();
    await until(async () => (await one.metric("roomcast_traces")) === 1, "the trace to end with its reader");
    await s.keep(new Trace(one, { user: "7" })).opened();
  });

  scenario("a trace that ends makes room for another on all nodes at once", async (s) => {
    const [one, other] = await cluster(s, 2, { trace: { max_open: 1 } });
    for (const node of [one, other, one]) {
      const trace = await s.keep(new Trace(node, { user: "7" })).opened(2);
      trace.close();
      for (const node of [one, other]) await until(async () => (await node.metric("roomcast_traces")) === 0, "no trace", 10_000);
    }
  });

  scenario("a trace ends by itself", async (s) => {
    const one = await s.node({ trace: { max_time: "1s" } });
    const trace = await s.keep(new Trace(one, { user: "7" })).opened();
    await trace.line({ type: "ended", reason: "max_time" });
    await until(() => trace.ended, "the end of the stream");
    await until(async () => (await one.metric("roomcast_traces")) === 0, "no trace");
  });

  scenario("a trace ends when its key is replaced, or when its operator signs out", async (s) => {
    const one = await s.node();
    const own = { "x-roomcast-console": "1", origin: one.url };
    const signedIn = await post(`${one.url}/console/session`, { key: KEY }, own);
    const cookie = { ...own, cookie: signedIn.headers["set-cookie"][0].split(";")[0] };
    const [console, program] = [s.keep(new Trace(one, { user: "7" }, cookie)), s.keep(new Trace(one, { user: "7" }))];
    await Promise.all([console.opened(), program.opened()]);
    assert.equal((await request(`${one.url}/console/session`, { method: "DELETE", headers: cookie })).status, 200);
    await console.line({ type: "ended", reason: "unauthorized" });
    await until(() => console.ended, "the end of the console's stream");
    await s.ws(one, { token: tokenFor("7") }).welcomed();
    await program.line({ type: "connected", user: "7" });
    assert.deepEqual(program.all({ type: "ended" }), []);
    const keys = toml({ listen: `127.0.0.1:${one.port}`, ...configure({ publish: { keys: ["another-key-0123456789"] } }) });
    fs.writeFileSync(path.join(one.directory, "roomcast.toml"), keys);
    assert.equal((await command(one, "/reload")).status, 200);
    await program.line({ type: "ended", reason: "unauthorized" });
    await until(() => program.ended, "the end of the stream");
  });

  scenario("lines beyond the pace are skipped and counted", async (s) => {
    const one = await s.node({ trace: { lines_per_second: 5 } });
    const trace = await s.keep(new Trace(one, { user: "7" })).opened();
    const client = await s.ws(one, { token: tokenFor("7") }).welcomed();
    for (let n = 0; n < 200; n += 1) client.send({ type: "event", event: "echo", data: n });
    const { lines } = await trace.line({ type: "skipped" });
    assert.ok(lines > 0);
    assert.ok((await one.metric("roomcast_trace_skipped_total")) >= lines);
    assert.ok(trace.all({ type: "event_in" }).length < 100);
  });

  scenario("`roomcast trace` follows over all nodes until it is stopped", async (s) => {
    const [one, other] = await cluster(s, 2);
    const start = (...args) => {
      const started = new Daemon(["trace", ...args, "--url", one.url, "--key", KEY], {}, BINARY);
      return s.keep(Object.assign(started, { close: () => started.signal("SIGKILL") }));
    };
    const [words, json] = [start("--user", "7", "--room", "room:a"), start("--user", "7", "--json")];
    for (const one of [words, json]) await until(() => one.stdout.includes("opened"), () => one.output);
    const client = await s.io(other, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    await client.join("room:b", "room:a");
    await until(() => / joined .* rooms=room:a .*user=7/.test(words.stdout), () => words.output);
    assert.doesNotMatch(words.stdout, /room:b/);
    // Without a line of which only a part has come.
    const lines = () => json.stdout.split("\n").slice(0, -1).map((line) => JSON.parse(line));
    await until(() => lines().some((line) => line.type === "joined" && line.rooms[0] === "room:b"), () => json.output);
    await words.stop("SIGINT");
  });
});
