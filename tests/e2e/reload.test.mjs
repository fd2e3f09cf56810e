// A changed configuration without a restart: POST /reload, SIGHUP, `roomcast reload`.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import tls from "node:tls";
import { SECRET as BACKEND_SECRET, startBackend } from "../harness/backend.mjs";
import { makeCertificate } from "../harness/certificate.mjs";
import { configure, KEY, SECRET, toml } from "../harness/config.mjs";
import { stopwatch, until, within } from "../harness/deadline.mjs";
import { request, trust } from "../harness/http.mjs";
import { startJwks } from "../harness/jwks.mjs";
import { roomcast } from "../harness/node.mjs";
import { assertError, command, publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { keyPair, tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const NEW_SECRET = "another e2e secret of more than thirty-two bytes";
const NEW_KEY = "another-e2e-publish-key";

const fileOf = (node) => path.join(node.directory, "roomcast.toml");
/** Writes the node's file again. */
function rewrite(node, overrides = {}) {
  const tls = node.tls && { cert_file: node.tls.cert_file, key_file: node.tls.key_file };
  fs.writeFileSync(fileOf(node), toml({ listen: `127.0.0.1:${node.port}`, ...configure({ tls, ...overrides }) }));
}

async function reloaded(node, options) {
  const answer = await command(node, "/reload", undefined, options);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
}

async function rewritten(node, overrides, options) {
  rewrite(node, overrides);
  return reloaded(node, options);
}

const keysOf = (changes) => changes.map(({ key }) => key);
const cluster = async (node) => (await request(`${node.url}/cluster`, { headers: { authorization: `Bearer ${KEY}` } })).json().nodes;

suite("Reload", () => {
  scenario("secrets are rotated over two nodes, and no client is refused", async (s) => {
    const redis = await s.redis();
    const [a, b] = await nodesOn(s, redis, 2);
    const shared = { redis: { url: redis.url } };
    let issue = SECRET;
    const connects = { [SECRET]: [0, 0], [NEW_SECRET]: [0, 0] };
    const loops = [a, b].map((node, at) =>
      s.repeat(async () => {
        const key = issue;
        const client = s.io(node, { token: tokenFor("7", {}, { key }), ...WEBSOCKET, reconnection: false });
        await client.connected();
        client.close();
        connects[key][at] += 1;
      }));
    const all = async (auth) => {
      for (const node of [a, b]) assert.deepEqual(keysOf((await rewritten(node, { ...shared, auth })).changed), ["auth.secret"]);
    };
    const more = async (key) => {
      const before = [...connects[key]];
      await until(() => connects[key].every((count, at) => count >= before[at] + 5), "connects go on, at both nodes");
    };
    await more(SECRET);
    // Both are accepted before anybody signs with the new one.
    await all({ secret: undefined, secrets: [SECRET, NEW_SECRET] });
    await more(SECRET);
    issue = NEW_SECRET;
    await more(NEW_SECRET);
    // Tokens of the old one are still around.
    await s.io(a, { token: tokenFor("8"), ...WEBSOCKET }).connected();
    const old = () => Promise.all([a, b].map((node) => node.metric('roomcast_tokens_verified_total{key="0"}')));
    const before = await old();
    assert.ok((await a.metric('roomcast_tokens_verified_total{key="1"}')) > 0);
    await more(NEW_SECRET);
    assert.deepEqual(await old(), before, "nobody comes with the old one any more");
    await all({ secret: NEW_SECRET });
    await more(NEW_SECRET);
    await Promise.all(loops.map((loop) => loop.stop()));
    for (const node of [a, b]) {
      assert.equal((await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).refused()).data.code, "token_signature");
      assert.equal(await node.metric('roomcast_config_reloads_total{result="applied"}'), 3);
    }
  });

  scenario("publish keys are rotated while somebody publishes", async (s) => {
    const node = await s.node();
    let key = KEY;
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    let sent = 0;
    const publisher = s.repeat(async () => void (await published(node, { room: "user:7", event: "n", data: ++sent }, { key })));
    await rewritten(node, { publish: { keys: [KEY, NEW_KEY] } });
    key = NEW_KEY;
    const before = sent;
    await until(() => sent > before + 5, "publishes go on");
    await rewritten(node, { publish: { keys: [NEW_KEY] } }, { key: KEY });
    await until(() => sent > before + 20, "publishes go on");
    await publisher.stop();
    assertError(await publish(node, { room: "user:7", event: "n", data: 0 }, { key: KEY }), 401, "unauthorized");
    await until(() => client.argsOf("n").length === sent, "all events");
    assert.deepEqual(client.argsOf("n"), Array.from({ length: sent }, (_, at) => [at + 1]));
  });

  scenario("nothing is lost while reloads come under load", async (s) => {
    const redis = await s.redis();
    const [a, b] = await nodesOn(s, redis, 2);
    const clients = await Promise.all(Array.from({ length: 10 }, (_, at) => s.io([a, b][at % 2], { token: tokenFor(`${at}`), ...WEBSOCKET }).connected()));
    for (const client of clients) await client.join("room:r");
    let sent = 0;
    const publisher = s.repeat(async () => void (await published([a, b][sent % 2], { room: "room:r", event: "n", data: ++sent })));
    for (let round = 1; round <= 5; round += 1) {
      const rules = configure().rooms.concat({ match: `extra:${round}`, join: "allow" });
      for (const node of [a, b]) {
        const answer = await rewritten(node, { redis: { url: redis.url }, rooms: rules, limits: { rooms_per_session: 100 + round } });
        assert.deepEqual([keysOf(answer.changed), answer.memberships], [["limits.rooms_per_session", "rooms"], 0]);
      }
    }
    await publisher.stop();
    const expected = Array.from({ length: sent }, (_, at) => [at + 1]);
    for (const client of clients) {
      await until(() => client.argsOf("n").length >= sent, "all events");
      assert.deepEqual([client.argsOf("n"), client.connects, client.disconnects], [expected, 1, []]);
    }
  });

  scenario("a configuration with mistakes changes nothing, and every mistake is named with its place", async (s) => {
    const node = await s.node();
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    await client.join("room:r");
    const before = (await cluster(node))[0].config;
    const bad = { publish: { keys: [NEW_KEY], max_bdy: 5 }, limits: { events_per_second: 0 }, rooms: [{ match: "user:{usr}", join: "auto" }], on: [] };
    rewrite(node, bad);
    const answer = await command(node, "/reload", {});
    assert.equal(answer.status, 422);
    const { error, mistakes } = answer.json();
    assert.equal(error.code, "bad_configuration");
    assert.equal(mistakes.length, 3, answer.text);
    for (const [at, part] of ["[publish] max_bdy", "[limits] events_per_second", "[[rooms]] 1 match"].entries()) {
      assert.match(mistakes[at].place, new RegExp(`roomcast\\.toml:\\d+:\\d+ ${part.replace(/[[\]]/g, "\\$&")}`));
      assert.ok(error.message.includes(mistakes[at].message), error.message);
    }
    // The same lines as at the start.
    const check = await roomcast(["check", "--config", fileOf(node)]);
    assert.equal(check.code, 2);
    for (const { place, message } of mistakes) assert.ok(check.output.includes(`${place}: ${message}`), check.output);
    const cli = await roomcast(["reload", "--config", fileOf(node), "--url", node.url, "--key", KEY]);
    assert.equal(cli.code, 2, cli.output);
    for (const { place, message } of mistakes) assert.ok(cli.output.includes(`${place}: ${message}`), cli.output);
    node.signal("SIGHUP");
    await until(async () => (await node.metric('roomcast_config_reloads_total{result="refused"}')) === 3, "three refused reloads");
    await node.says("the old one stays in force");
    // Keys, rules and members are as before.
    await published(node, { room: "room:r", event: "still", data: 1 });
    await client.event("still");
    assertError(await command(node, "/reload", undefined, { key: NEW_KEY }), 401, "unauthorized");
    assert.equal((await client.ask({ type: "join", room: "room:other" })).type, "joined");
    assert.equal((await cluster(node))[0].config, before);
    rewrite(node);
    assert.equal((await reloaded(node)).result, "unchanged");
  });

  scenario("what new values would need from a restart makes them a mistake", async (s) => {
    const node = await s.node();
    const rooms = [{ match: "chat:<x>", join: "ask" }];
    rewrite(node, { backend: { url: "http://127.0.0.1:9/" }, rooms, on: [] });
    const answer = await command(node, "/reload", {});
    assert.equal(answer.status, 422, answer.text);
    assert.match(answer.json().mistakes[0].message, /needs a \[backend\] that is asked \(until a restart, when backend\.url changes too\)/);
  });

  scenario("members lose the rooms of a rule that is gone, on each node that is reloaded, and are counted", async (s) => {
    const redis = await s.redis();
    const present = { match: "room:<name>", join: "allow", presence: true, left: { event: "gone", args: ["{user}"] } };
    const rules = [{ match: "user:{user}", join: "auto" }, { match: "keep:<x>", join: "allow" }, present];
    const on = [...configure().on, { event: "keep", join: "keep:{0}", ack: [{ ok: true }] }];
    const shared = { redis: { url: redis.url }, on };
    const [a, b] = await nodesOn(s, redis, 2, { rooms: rules, on });
    const io = await s.io(a, { token: tokenFor("1"), ...WEBSOCKET }).connected();
    const ws = await s.ws(a, { token: tokenFor("2") }).welcomed();
    const granted = await s.ws(a, { token: tokenFor("3", { rooms: ["room:r"] }) }).welcomed();
    const commanded = await s.ws(a, { token: tokenFor("4") }).welcomed();
    const other = await s.ws(b, { token: tokenFor("5") }).welcomed();
    await io.join("room:r", "room:q");
    assert.deepEqual(await io.ask("keep", "1"), [{ ok: true }]);
    await ws.join("room:r");
    await other.join("room:r");
    await command(a, "/join", { user: "4", room: "room:r" });
    await commanded.message("joined");
    const users = async (node) => (await request(`${node.url}/rooms/room:r`, { headers: { authorization: `Bearer ${KEY}` } })).json().users;
    await until(async () => (await users(a)).length === 5, "five users are present");
    const without = [rules[0], rules[1]];
    const answer = await rewritten(a, { ...shared, rooms: without });
    assert.deepEqual([keysOf(answer.changed), answer.sessions, answer.memberships], [["rooms"], 2, 3]);
    assert.deepEqual(answer.changed[0], { key: "rooms", from: "3 rules", to: "2 rules" });
    assert.deepEqual(await ws.message("left"), { type: "left", room: "room:r" });
    assert.equal(await a.metric('roomcast_memberships_lost_total{reason="rules"}'), 3);
    assert.equal(await b.metric('roomcast_memberships_lost_total{reason="rules"}'), 0);
    await other.message((message) => message.event === "gone");
    await until(async () => (await users(b)).length === 3, "presence forgets them");
    await published(b, { room: "room:r", event: "after", data: 1 });
    await published(b, { room: "keep:1", event: "kept", data: 1 });
    for (const client of [granted, commanded, other]) await client.event("after");
    await io.event("kept");
    assert.equal((await ws.ask({ type: "join", room: "room:r" })).code, "forbidden");
    assert.deepEqual([io.argsOf("after"), ws.eventsOf("after")], [[], []]);
    // The other node still has the old rules, and says so.
    const fingerprints = async () => {
      const configs = (await cluster(a)).map(({ config }) => config);
      return configs.length === 2 && configs.every(Boolean) && new Set(configs).size;
    };
    await until(async () => (await fingerprints()) === 2, "two configurations");
    await rewritten(b, { ...shared, rooms: without });
    await until(async () => (await fingerprints()) === 1, "one configuration");
    await other.message("left");
  });

  scenario("a thousand sessions lose a room at once, and nobody else waits for it", async (s) => {
    const node = await s.node({ limits: { user_connections: 0, unauthenticated: 100_000 } });
    const watcher = await s.ws(node, { token: tokenFor("watcher") }).welcomed();
    const token = tokenFor("7", { rooms: ["room:mine"] });
    const sockets = [];
    for (let batch = 0; batch < 10; batch += 1) sockets.push(...(await Promise.all(Array.from({ length: 100 }, () => s.ws(node, { token }).welcomed()))));
    await Promise.all(sockets.map((socket) => socket.join("room:r")));
    const delays = [];
    const pings = s.repeat(async () => {
      const [before, took] = [watcher.messages.length, stopwatch()];
      watcher.send({ type: "ping" });
      await until(() => watcher.messages.length > before, "a pong");
      delays.push(took());
    });
    const answer = await rewritten(node, { limits: { user_connections: 0, unauthenticated: 100_000 }, rooms: [{ match: "user:{user}", join: "auto" }] });
    assert.deepEqual([answer.sessions, answer.memberships], [1000, 1000], "and keep what their tokens grant");
    await pings.stop();
    assert.ok(Math.max(...delays) < 3_000, `${Math.max(...delays)} ms`);
    await Promise.all(sockets.map((socket) => socket.message("left")));
  });

  scenario("a room gets presence while members are in it", async (s) => {
    const node = await s.node();
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    await client.join("room:r");
    const rooms = [{ match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "allow", presence: true }];
    assert.equal((await rewritten(node, { rooms })).memberships, 0);
    const members = async () => (await request(`${node.url}/rooms/room:r`, { headers: { authorization: `Bearer ${KEY}` } })).json();
    await until(async () => (await members()).users?.[0] === "7", "the member is present");
    // And goes again, whatever the rules say then.
    await rewritten(node);
    client.close();
    await until(async () => (await members()).connections === 0, "nobody is in the room");
    await rewritten(node, { rooms });
    await until(async () => (await members()).connections === 0, "nobody is left over");
  });

  scenario("SIGHUP does the same: the level and the format of the log, origins, limits", async (s) => {
    const node = await s.node();
    rewrite(node, { log: { level: "debug", format: "json" }, cors: { origins: ["https://app.example.com"] }, limits: { rooms_per_session: 2 } });
    node.signal("SIGHUP");
    await until(async () => (await node.metric('roomcast_config_reloads_total{result="applied"}')) === 2, "the reload is applied");
    const client = await s.ws(node, { token: tokenFor("7"), origin: "https://app.example.com" }).welcomed();
    const lines = () => node.output.split("\n").slice(0, -1);
    await until(() => lines().some((line) => line.startsWith("{") && JSON.parse(line).level === "DEBUG"), "a line of debug in JSON");
    await client.join("room:a");
    assert.equal((await client.ask({ type: "join", room: "room:b" })).code, "too_many_rooms");
    rewrite(node, { log: { level: "error" } });
    node.signal("SIGHUP");
    await until(async () => (await node.metric('roomcast_config_reloads_total{result="applied"}')) === 3, "the reload is applied");
    const refused = s.ws(node, { token: tokenFor("7"), origin: "https://app.example.com" });
    assert.equal((await refused.ended()).status, 403);
    assert.equal((await client.ask({ type: "join", room: "room:b" })).type, "joined");
    // Then the whole log is there.
    await node.stop();
    assert.ok(!node.output.includes("is not in cors.origins"), "no line below error");
  });

  scenario("the backend moves, with another secret and other notices, and what is under way ends where it began", async (s) => {
    const [first, second] = [s.serve(await startBackend()), s.serve(await startBackend())];
    const on = [{ event: "ask", forward: true }];
    const node = await s.node({ ...first.config({ secret: "the secret before", notify: [], timeout: "60s" }), on });
    const client = await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected();
    let release;
    const held = new Promise((resolve) => (release = resolve));
    first.answer = async () => (await held, { ack: ["first"] });
    second.answer = () => ({ ack: ["second"] });
    const waiting = client.ask("ask", 1);
    assert.equal((await first.call("event")).signed, false, "the secret before");
    const answer = await rewritten(node, { ...second.config({ notify: ["connect"], timeout: "50s" }), on });
    assert.deepEqual(keysOf(answer.changed), ["backend.url", "backend.secret", "backend.timeout", "backend.notify"]);
    assert.ok(!JSON.stringify(answer).includes(BACKEND_SECRET), "no secret is shown");
    const other = await s.io(node, { token: tokenFor("8"), ...WEBSOCKET }).connected();
    assert.deepEqual(await other.ask("ask", 2), ["second"]);
    assert.deepEqual([(await second.call("event")).signed, (await second.call("connect")).user], [true, "8"]);
    release();
    assert.deepEqual(await waiting, ["first"]);
    assert.equal(first.calls.length, 1);
  });

  scenario("a certificate is read again, and one that does not fit its key changes nothing", async (s) => {
    const [before, after] = [makeCertificate(), makeCertificate()];
    const node = await s.node({ tls: before });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    const served = () =>
      within(new Promise((resolve, reject) => {
        const socket = tls.connect({ port: node.port, host: "127.0.0.1", rejectUnauthorized: false }, () => (resolve(socket.getPeerX509Certificate().fingerprint256), socket.end()));
        socket.on("error", reject);
      }), "a TLS handshake");
    const old = await served();
    fs.copyFileSync(after.cert_file, before.cert_file);
    const refused = await command(node, "/reload", {});
    assert.equal(refused.status, 422);
    assert.match(refused.json().mistakes[0].place, /\[tls\] key_file/);
    assert.equal(await served(), old);
    fs.copyFileSync(after.key_file, before.key_file);
    assert.deepEqual(keysOf((await reloaded(node)).changed), ["tls.cert_file"]);
    trust(node.url, after.pem);
    assert.notEqual(await served(), old);
    assert.equal((await reloaded(node)).result, "unchanged");
    client.send({ type: "ping" });
    await client.message("pong");
  });

  scenario("a key set at another URL is fetched first, and counts only if it can be used", async (s) => {
    const [one, other] = [s.serve(await startJwks()), s.serve(await startJwks())];
    const [key, next] = [keyPair("RS256"), keyPair("RS256")];
    one.keys = [key.jwk("a")];
    other.body = "no JSON";
    const auth = (jwks) => ({ secret: undefined, jwks_url: jwks.url, algorithms: ["RS256"] });
    const signed = ({ privateKey }, kid) => tokenFor("7", {}, { alg: "RS256", key: privateKey, header: { kid } });
    const node = await s.node({ auth: auth(one) });
    await s.ws(node, { token: signed(key, "a") }).welcomed();
    rewrite(node, { auth: auth(other) });
    const refused = await command(node, "/reload", {});
    assert.deepEqual([refused.status, refused.json().mistakes[0].message], [422, "the answer is not JSON"]);
    await s.ws(node, { token: signed(key, "a") }).welcomed();
    other.body = undefined;
    other.keys = [next.jwk("b")];
    assert.deepEqual(keysOf((await reloaded(node)).changed), ["auth.jwks_url"]);
    await s.ws(node, { token: signed(next, "b") }).welcomed();
    assert.equal((await s.ws(node, { token: signed(key, "a") }).ended()).code, 4401);
    assert.equal(await node.metric('roomcast_tokens_verified_total{key="jwks"}'), 3);
    // The new one is followed from then on.
    const third = keyPair("RS256");
    other.keys.push(third.jwk("c"));
    await s.ws(node, { token: signed(third, "c") }).welcomed();
  });

  scenario("what needs a restart is named, and the rest is in force", async (s) => {
    const node = await s.node();
    rewrite(node, { redis: { prefix: "other" }, socketio: { ping_interval: "30s" }, publish: { keys: [KEY, NEW_KEY] } });
    const answer = await reloaded(node);
    assert.deepEqual([keysOf(answer.changed), keysOf(answer.needs_restart)], [["publish.keys"], ["redis.prefix", "socketio.ping_interval"]]);
    assert.deepEqual(answer.needs_restart[0], { key: "redis.prefix", from: '"roomcast"', to: '"other"' });
    assert.ok(!JSON.stringify(answer).includes(NEW_KEY), "no secret is shown");
    await published(node, { room: "user:7", event: "n", data: 1 }, { key: NEW_KEY });
    assert.deepEqual((await cluster(node))[0].needs_restart, ["redis.prefix", "socketio.ping_interval"]);
    assert.equal(await node.metric("roomcast_config_needs_restart"), 2);
    const { stdout, code } = await roomcast(["reload", "--config", fileOf(node)]);
    assert.equal(code, 0);
    assert.match(stdout, /the same configuration as before\nnot in force until a restart:\n {2}redis\.prefix: "roomcast" -> "other"\n/);
    await rewritten(node, { publish: { keys: [KEY, NEW_KEY] } });
    assert.equal((await cluster(node))[0].needs_restart, undefined);
  });

  scenario("the command prints what changed, and finds a key that the node knows while keys are rotated", async (s) => {
    const node = await s.node();
    rewrite(node, { publish: { keys: [NEW_KEY, KEY] }, limits: { events_per_second: 70 } });
    const { stdout, code, output } = await roomcast(["reload", "--config", fileOf(node)]);
    assert.equal(code, 0, output);
    assert.match(stdout, /has a changed configuration in force:\n {2}publish\.keys: \["\*\*\*"\] -> \["\*\*\*", "\*\*\*"\]\n {2}limits\.events_per_second: 100000 -> 70\n/);
    const json = await roomcast(["reload", "--config", fileOf(node), "--json"]);
    assert.equal(JSON.parse(json.stdout).result, "unchanged");
  });

  scenario("a storm of reloads is a few reloads, and each caller gets the answer of one that began after its call", async (s) => {
    const node = await s.node();
    rewrite(node, { limits: { events_per_second: 70 } });
    const answers = await Promise.all(Array.from({ length: 60 }, () => command(node, "/reload", {})));
    assert.ok(answers.every(({ status }) => status === 200), answers.find(({ status }) => status !== 200)?.text);
    for (let count = 0; count < 50; count += 1) node.signal("SIGHUP");
    await reloaded(node);
    const reloads = await Promise.all(["applied", "unchanged"].map((result) => node.metric(`roomcast_config_reloads_total{result="${result}"}`)));
    assert.equal(reloads[0], 2, "the start and one change");
    // Of 111 calls.
    assert.ok(reloads[1] < 60, `${reloads}`);
  });

  scenario("only a known key reloads, and a file that hangs delays nobody else", async (s) => {
    const node = await s.node();
    for (const key of [null, "wrong"]) assertError(await command(node, "/reload", {}, { key }), 401, "unauthorized");
    assertError(await command(node, "/reload", { rules: [] }), 400, "bad_json");
    assertError(await command(node, "/reload", { node: "00000000" }), 409, "other_node");
    fs.rmSync(fileOf(node));
    const gone = await command(node, "/reload", {});
    assert.match(gone.json().mistakes[0].message, /cannot read the file/);
    execFileSync("mkfifo", [fileOf(node)]);
    let answered = false;
    const waiting = reloaded(node).finally(() => (answered = true));
    await published(node, { room: "user:7", event: "n", data: 1 });
    await s.ws(node, { token: tokenFor("7") }).welcomed();
    assert.equal(answered, false, "the reload waits for its file");
    await rewrite(node, { limits: { events_per_second: 70 } });
    assert.deepEqual(keysOf((await waiting).changed), ["limits.events_per_second"]);
  });
});
