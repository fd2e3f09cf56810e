// POST /revoke and `roomcast revoke`: the user's sessions end on every node, and their older tokens are refused, until it ends.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { roomcast } from "../harness/node.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn, reconnected, recorded } from "../harness/sessions.mjs";
import { now, tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
/** Issued a minute ago. */
const older = (user = "7", more = {}) => tokenFor(user, { iat: now() - 60, ...more });
/** Issued now: after the answer of /revoke. */
const younger = (user = "7", more = {}) => tokenFor(user, { iat: now(), ...more });

async function revoked(node, body) {
  const answer = await command(node, "/revoke", body);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
}

/** Every way in refuses the token. */
async function refusedEverywhere(s, nodes, token) {
  for (const node of nodes) {
    const io = s.io(node, { token, ...WEBSOCKET });
    const error = await io.refused();
    assert.deepEqual([error.data?.code, io.socket.active], ["revoked", false], error.message);
    const polling = s.io(node, { token, transports: ["polling"] });
    assert.equal((await polling.refused()).data?.code, "revoked");
    const ws = s.ws(node, { token });
    assert.equal((await ws.ended()).code, 4401);
    assert.equal(ws.messages.find(({ type }) => type === "error").code, "revoked");
    const sse = await s.sse(node, { token }).answered();
    await until(() => sse.ended, "the whole answer");
    assert.deepEqual([sse.status, JSON.parse(sse.body).error.code], [401, "revoked"]);
  }
}

/** No way in refuses the token. */
async function accepted(s, nodes, token) {
  for (const node of nodes) {
    await s.io(node, { token, ...WEBSOCKET }).connected();
    await s.ws(node, { token }).welcomed();
    assert.equal((await s.sse(node, { token }).answered()).status, 200);
  }
}

suite("Revocation", () => {
  scenario("all sessions of a user end on every node, and their older tokens are refused", async (s) => {
    const nodes = await nodesOn(s, await s.redis(), 2);
    const [a, b] = nodes;
    const token = older();
    const bystander = await s.io(b, { token: older("8"), ...WEBSOCKET }).connected();
    const ios = await Promise.all([s.io(a, { token, ...WEBSOCKET }), s.io(b, { token, transports: ["polling"] }), s.io(b, { token: older(7), ...WEBSOCKET })].map((client) => client.connected()));
    const ws = await s.ws(b, { token }).welcomed();
    const sse = await s.sse(b, { token }).answered();
    const justBefore = younger();
    const answer = await revoked(a, { user: "7", for: "1h" });
    assert.equal(answer.sessions, 5);
    assert.ok(Math.abs(Date.parse(answer.until) - Date.now() - 3_600_000) < 60_000, answer.until);
    for (const io of ios) {
      assert.equal(await io.disconnected(), "io server disconnect");
      assert.equal(io.socket.active, false, "it does not reconnect by itself");
    }
    assert.deepEqual(await ws.ended(), { code: 4401, reason: "revoked" });
    assert.deepEqual(ws.messages.at(-1), { type: "closing", reason: "revoked", retry_after_ms: null });
    await until(() => sse.ended, "the stream ends");
    await refusedEverywhere(s, nodes, token);
    await refusedEverywhere(s, nodes, tokenFor(7));
    await refusedEverywhere(s, nodes, justBefore);
    await accepted(s, nodes, younger());
    await published(a, { room: "user:8", event: "still here", data: 1 });
    await bystander.event("still here");
    assert.deepEqual([bystander.connects, bystander.disconnects], [1, []]);
    assert.ok((await a.metric('roomcast_handshakes_total{result="revoked"}')) >= 4);
    await b.metricIs("roomcast_revocations", 1);
    // A refresh is no way around it.
    const fresh = await s.ws(a, { token: younger() }).welcomed();
    fresh.send({ type: "auth", token });
    assert.equal((await fresh.message("error")).code, "revoked");
    assert.equal((await fresh.ended()).code, 4401);
  });

  scenario("one token is revoked by its jti, and the user's other tokens are not", async (s) => {
    const nodes = await nodesOn(s, await s.redis(), 2);
    const [stolen, own] = [older("7", { jti: "a/1" }), older("7", { jti: "a/2" })];
    const [one, other] = await Promise.all([s.io(nodes[1], { token: stolen, ...WEBSOCKET }).connected(), s.io(nodes[1], { token: own, ...WEBSOCKET }).connected()]);
    assert.equal((await revoked(nodes[0], { jti: "a/1" })).sessions, 1);
    assert.equal(await one.disconnected(), "io server disconnect");
    await refusedEverywhere(s, nodes, stolen);
    await accepted(s, nodes, own);
    assert.deepEqual(other.disconnects, []);
  });

  for (const how of ["on its own node", "on another node", "on another node after its own was killed"]) {
    scenario(`a session that waits to be resumed is over, ${how}`, async (s) => {
      const store = await s.redis();
      const [a, b] = await nodesOn(s, store, 2);
      const balancer = await s.proxy(a);
      const state = { token: older() };
      const client = await s.io(balancer, { auth: (done) => done({ token: state.token }), ...WEBSOCKET }).connected();
      await published(a, { room: "user:7", event: "first", data: 1 });
      await client.event("first");
      await recorded(store, "user:7");
      balancer.up = false;
      balancer.cut();
      await until(async () => (await a.connections("socketio")) === 0, "gone");
      await revoked(b, { user: "7", for: "1h" });
      await published(a, { room: "user:7", event: "missed", data: 1 });
      const stolen = { pid: client.socket._pid, offset: client.socket._lastOffset };
      if (how.includes("killed")) await a.stop("SIGKILL");
      const target = how === "on its own node" ? a : b;
      const thief = s.io(target, { auth: { token: older(), ...stolen }, ...WEBSOCKET });
      assert.equal((await thief.refused()).data.code, "revoked");
      state.token = younger();
      balancer.target = target;
      balancer.up = true;
      assert.equal(await reconnected(client, 2), false, "a new session");
      await published(target, { room: "user:7", event: "live", data: 1 });
      await client.event("live");
      assert.deepEqual([client.argsOf("missed"), thief.argsOf("missed")], [[], []]);
    });
  }

  scenario("it survives the restart of all nodes, and the loss of Redis' data", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2, { recovery: { window: "0s" } });
    const token = older();
    await revoked(a, { user: "7", for: "1h" });
    await revoked(b, { jti: "stolen", for: "2h" });
    await Promise.all([a.stop(), b.stop("SIGKILL")]);
    const [c] = await nodesOn(s, store, 1, { recovery: { window: "0s" } });
    await refusedEverywhere(s, [c], token);
    await refusedEverywhere(s, [c], older("8", { jti: "stolen" }));
    const key = "roomcast:{roomcast:events}:revoked";
    const ttl = Number(await store.cli("PTTL", key));
    assert.ok(ttl > 7_000_000 && ttl <= 7_200_000, `it ends with the last: ${ttl}`);
    await store.cli("FLUSHALL");
    await published(c, { room: "user:8", event: "n", data: 1 });
    await until(async () => (await store.cli("EXISTS", key)) === "1", "kept again");
    await until(async () => (await store.cli("HLEN", key)) === "3", "both, and their end");
    const [d] = await nodesOn(s, store, 1);
    await refusedEverywhere(s, [d], token);
    await accepted(s, [d], younger());
  });

  scenario("somebody deletes what is kept while nodes run: they write it again, and nodes that start refuse too", async (s) => {
    const store = await s.redis();
    const [a] = await nodesOn(s, store, 2);
    const token = older();
    const key = "roomcast:{roomcast:events}:revoked";
    await revoked(a, { user: "7", for: "1h" });
    await revoked(a, { jti: "stolen", for: "2h" });
    await store.cli("HDEL", key, "u:7");
    await until(async () => (await store.cli("HEXISTS", key, "u:7")) === "1", "kept again");
    await store.cli("DEL", key);
    // It may read before the key is written again; then it learns from the log.
    const [early] = await nodesOn(s, store, 1);
    await until(async () => (await s.ws(early, { token }).message(({ type }) => type === "welcome" || type === "error")).code === "revoked", "refused by a node that started without the key");
    await until(async () => (await store.cli("HLEN", key)) === "3", "both, and their end");
    const [late] = await nodesOn(s, store, 1);
    await refusedEverywhere(s, [late], token);
    await refusedEverywhere(s, [late], older("8", { jti: "stolen" }));
    await accepted(s, [early, late], younger());
  });

  scenario("a node that starts without Redis lets nobody in before it knows what is revoked", async (s) => {
    const store = await s.redis();
    const [a] = await nodesOn(s, store, 1);
    await revoked(a, { user: "7" });
    await store.cli("SAVE");
    await a.stop();
    await store.stop();
    const b = await s.node({ redis: { url: store.url } }, { ready: false });
    const [sse, io] = [s.sse(b, { token: older() }), s.io(b, { token: older("8"), ...WEBSOCKET })];
    assertError({ ...(await sse.answered()), text: await until(() => sse.ended && sse.body, "an answer"), json: () => JSON.parse(sse.body) }, 503, "starting");
    await until(() => io.errors.length, "not yet");
    await store.start();
    await io.connected();
    await refusedEverywhere(s, [b], older());
  });

  scenario("clients on their way in while it spreads do not stay", async (s) => {
    const nodes = await nodesOn(s, await s.redis(), 2, { presence: { grace: "0s" } });
    const token = older();
    const clients = Array.from({ length: 40 }, (_, at) => (at % 2 ? s.ws(nodes[at % 4 > 1 ? 1 : 0], { token }) : s.io(nodes[at % 4 > 1 ? 1 : 0], { token, ...WEBSOCKET })));
    await until(() => clients.some((client) => client.connects || client.messages?.length), "the first is in");
    await revoked(nodes[0], { user: "7" });
    await until(() => clients.every((client) => client.end || client.disconnects?.length || client.errors?.length), "all are out");
    await until(async () => (await command(nodes[0], "/users", { users: ["7"] })).json().users[0].connections === 0, "none is left");
    for (const node of nodes) await node.metricIs("roomcast_sessions", 0);
  });

  scenario("it ends by itself", async (s) => {
    const nodes = await nodesOn(s, await s.redis(), 2);
    await revoked(nodes[0], { user: "7", for: "15s" });
    await refusedEverywhere(s, nodes, older());
    await until(async () => {
      const client = s.ws(nodes[1], { token: older() });
      return until(() => client.end || client.messages.length, "an answer").then(() => client.messages[0]?.type === "welcome");
    }, "accepted again", 40_000);
    await accepted(s, nodes, older());
  });

  scenario("bounded in number: what is over is refused and counted, and what is there can be extended", async (s) => {
    for (const more of [{ redis: { url: (await s.redis()).url } }, {}]) {
      const one = await s.node({ auth: { max_revocations: 3 }, ...more });
      for (const user of ["1", "2"]) await revoked(one, { user, for: "1h" });
      await revoked(one, { user: "3", for: "10s" });
      assertError(await command(one, "/revoke", { user: "4" }), 429, "too_many_revocations");
      await revoked(one, { user: "1", for: "2h" });
      assert.equal(await one.metric('roomcast_refusals_total{reason="revocations"}'), 1);
      await until(async () => (await command(one, "/revoke", { user: "4" })).status === 200, "one has ended", 40_000);
      await one.metricIs("roomcast_revocations", 3);
    }
  });

  scenario("requests are checked, and need a key", async (s) => {
    const one = await s.node();
    for (const body of [{}, { user: "7", jti: "x" }, { user: "" }, { user: "7", for: "a day" }, { user: "7", for: "32d" }, { user: "7", for: "0s" }, { jti: "x".repeat(201) }]) {
      assertError(await command(one, "/revoke", body), 400, "bad_field");
    }
    for (const body of ["{", { user: "7", session: "x" }, { user: "7", for: 60 }]) assertError(await command(one, "/revoke", body), 400, "bad_json");
    assertError(await command(one, "/revoke", { user: "7" }, { key: null }), 401, "unauthorized");
    assert.equal((await one.get("/revoke", { authorization: `Bearer ${KEY}` })).status, 405);
    assert.equal((await revoked(one, { user: "7", jti: null, for: "" })).sessions, 0, "empty values count as absent");
  });

  scenario("roomcast revoke, with and without --json", async (s) => {
    const one = await s.node();
    const client = await s.ws(one, { token: older() }).welcomed();
    const access = ["--url", one.url, "--key", KEY];
    const text = await roomcast(["revoke", "--user", "7", "--for", "1h", ...access]);
    assert.equal(text.code, 0, text.output);
    assert.match(text.stdout, /^1 sessions ended; the user's tokens of before are refused until \d{4}-/);
    assert.equal((await client.ended()).code, 4401);
    const json = await roomcast(["revoke", "--jti", "abc", "--json", ...access]);
    assert.equal(JSON.parse(json.stdout).sessions, 0);
    assert.equal((await roomcast(["revoke", "--user", "7", "--for", "99d", ...access])).code, 1);
    assert.equal((await roomcast(["revoke", ...access])).code, 2);
    assert.equal((await roomcast(["revoke", "--user", "7", "--jti", "x", ...access])).code, 2);
    await refusedEverywhere(s, [one], older("8", { jti: "abc" }));
  });
});
