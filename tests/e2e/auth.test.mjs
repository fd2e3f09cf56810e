// Tokens: which are refused, on every endpoint, and what happens when they expire.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { until } from "../harness/deadline.mjs";
import { startJwks } from "../harness/jwks.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { badTokens, keyPair, now, sign, tokenFor } from "../harness/token.mjs";

/** Long enough to connect on a busy machine. */
const soon = () => now() + 8;

function pemFile(keep, pem) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-key-"));
  keep({ close: () => fs.rmSync(directory, { recursive: true }) });
  const file = path.join(directory, "public.pem");
  fs.writeFileSync(file, pem);
  return file;
}

/** Whether /ws accepts a token. */
async function admitted({ ws }, node, token) {
  const client = ws(node, { token });
  const outcome = await until(() => client.end ?? client.messages[0], "a welcome or a close");
  client.close();
  return outcome.type === "welcome";
}

suite("tokens", () => {
  scenario("bad tokens of every kind are refused on every endpoint and never logged", async ({ node, io, ws, sse }) => {
    const one = await node({ log: { level: "debug" } });
    const tokens = Object.entries(badTokens());
    assert.ok(tokens.length >= 10);
    const endpoints = {
      "Socket.IO by WebSocket": async (token) => assert.ok((await io(one, { token, transports: ["websocket"] }).refused()).message),
      "Socket.IO by polling": async (token) => assert.ok((await io(one, { token, transports: ["polling"] }).refused()).message),
      "/ws": async (token) => assert.equal((await ws(one, { token }).ended()).code, 4401),
      "/ws by message": async (token) => {
        const client = ws(one);
        client.socket.on("open", () => client.send({ type: "auth", token }));
        assert.equal((await client.ended()).code, 4401);
        assert.ok(!client.messages.some(({ type }) => type === "welcome"));
      },
      "/sse": async (token) => {
        const client = await sse(one, { token, rooms: ["room:a"] }).answered();
        await until(() => client.ended, "the answer to end");
        assert.equal(client.status, 401, client.body);
        assert.ok(!client.body.includes(token));
      },
    };
    for (const [kind, token] of tokens) {
      for (const [endpoint, refuse] of Object.entries(endpoints)) {
        await refuse(token).catch((error) => {
          throw new Error(`a token ${kind} on ${endpoint}: ${error.message}`);
        });
      }
    }
    for (const [kind, token] of tokens.filter(([, text]) => text.length > 40)) {
      assert.ok(!one.output.includes(token), `the token ${kind} is in the log`);
    }
    assert.ok(await admitted({ ws }, one, tokenFor("7")), "a good token is still accepted");
  });

  scenario("a token that expires closes its connection: Socket.IO returns with a fresh token, /ws is closed with 4401", async ({ node, io, ws }) => {
    const one = await node({ auth: { leeway: "0s" } });
    let given = 0;
    const auth = (answer) => answer({ token: tokenFor("7", { exp: given++ === 0 ? soon() : now() + 600 }) });
    for (const transports of [["websocket"], ["polling"]]) {
      given = 0;
      const client = await io(one, { auth, transports }).connected();
      const plain = await ws(one, { token: tokenFor("7", { exp: soon() }) }).welcomed();
      assert.match(await client.disconnected(), /^transport (close|error)$/);
      assert.equal((await plain.ended()).code, 4401);
      await until(() => client.connects === 2 && client.socket.connected, "connected with the fresh token");
      await published(one, { room: "user:7", event: "hello", data: 1 });
      await client.event("hello");
      client.close();
    }
  });

  scenario("/ws: a refreshed token keeps the connection, and a token of another user is refused", async ({ node, ws }) => {
    const one = await node({ auth: { leeway: "0s" } });
    const token = tokenFor("7", { exp: soon() });
    const [refreshed, left, other] = [ws(one, { token }), ws(one, { token }), ws(one, { token: tokenFor("7") })];
    await Promise.all([refreshed, left, other].map((client) => client.welcomed()));
    await refreshed.join("room:a");
    refreshed.send({ type: "auth", token: tokenFor("7") });
    assert.equal((await left.ended()).code, 4401);
    await published(one, { room: "room:a", event: "still here", data: 1 });
    await refreshed.event("still here");
    other.send({ type: "auth", token: tokenFor("8") });
    const outcome = await until(() => other.end ?? other.messages.find(({ type }) => type === "error"), "a refusal");
    assert.ok(outcome.code === 4401 || outcome.code === 4403 || outcome.type === "error", JSON.stringify(outcome));
    await published(one, { room: "user:8", event: "of 8", data: 1 });
    await published(one, { rooms: ["user:7"], event: "end", data: 1 });
    await refreshed.event("end");
    await until(() => other.end ?? other.eventsOf("end").length, "what the other connection gets last");
    assert.deepEqual(other.eventsOf("of 8"), []);
  });

  for (const alg of ["RS256", "ES256"]) {
    scenario(`${alg} with public_key_file, and never HS256 with that key`, async (started) => {
      const pair = keyPair(alg);
      const file = pemFile(started.keep, pair.publicKey);
      const one = await started.node({ auth: { secret: undefined, public_key_file: file, algorithms: [alg] } });
      const claims = { sub: "7", exp: now() + 600 };
      assert.ok(await admitted(started, one, sign(claims, { alg, key: pair.privateKey })));
      assert.ok(!(await admitted(started, one, sign(claims, { alg: "HS256", key: pair.publicKey }))));
      assert.ok(!(await admitted(started, one, sign(claims, { alg, key: keyPair(alg).privateKey }))));
      assert.ok(!(await admitted(started, one, sign(claims, { alg: "none" }))));
    });
  }

  scenario("JWKS: keys are found by kid, rotated, and kept while the endpoint fails", async (started) => {
    const jwks = started.keep(await startJwks());
    const [old, fresh, stranger] = [keyPair("RS256"), keyPair("ES256"), keyPair("RS256")];
    jwks.keys = [old.jwk("old")];
    const begun = Date.now();
    const one = await started.node({ auth: { secret: undefined, jwks_url: jwks.url, algorithms: ["RS256", "ES256"] } });
    const claims = { sub: "7", exp: now() + 600 };
    const oldToken = sign(claims, { alg: "RS256", key: old.privateKey, header: { kid: "old" } });
    const freshToken = sign(claims, { alg: "ES256", key: fresh.privateKey, header: { kid: "fresh" } });
    assert.ok(await admitted(started, one, oldToken));
    assert.ok(!(await admitted(started, one, sign(claims, { alg: "RS256", key: stranger.privateKey, header: { kid: "old" } }))));
    jwks.keys = [old.jwk("old"), fresh.jwk("fresh")];
    await until(() => admitted(started, one, freshToken), "the new key accepted");
    for (const broken of ["{", '{"keys":7}', "x".repeat(1_000_000)]) {
      jwks.body = broken;
      assert.ok(!(await admitted(started, one, sign(claims, { alg: "RS256", key: stranger.privateKey, header: { kid: "unknown" } }))));
      assert.ok(await admitted(started, one, sign({ ...claims, jti: broken.slice(0, 3) }, { alg: "RS256", key: old.privateKey, header: { kid: "old" } })), "the old keys are kept");
    }
    assert.ok(jwks.requests.every(({ url }) => url === "/jwks.json"), "claims never reach the URL");
    // One every three seconds at most.
    const most = 2 + (Date.now() - begun) / 3_000;
    assert.ok(jwks.requests.length <= most, `unknown kids cause few requests: ${jwks.requests.length} of ${most}`);
  });

  scenario("issuer, audience, require, nested and numeric users, and the rooms claim are checked", async (started) => {
    const one = await started.node({
      auth: { issuer: "https://id.example", audience: "chat", user_claim: "user.id", require: { email_verified: true } },
    });
    const good = { user: { id: 7 }, iss: "https://id.example", aud: ["web", "chat"], email_verified: true, exp: now() + 600 };
    const exact = { ...good, rooms: ["team:blue", "all:*"] };
    const client = await started.ws(one, { token: sign(exact) }).welcomed();
    await published(one, { room: "team:blue", event: "team", data: 1 });
    await published(one, { room: "user:7", event: "own", data: 1 });
    await Promise.all([client.event("team"), client.event("own")]);
    await client.join("all:1");
    assert.equal((await client.ask({ type: "join", room: "other:1" })).type, "error");
    const bad = [{ iss: "https://other" }, { iss: undefined }, { aud: "mobile" }, { aud: undefined }, { email_verified: false },
      { email_verified: "true" }, { email_verified: undefined }, { user: {} }, { user: { id: [7] } }, { user: 7 }];
    for (const change of bad) {
      assert.ok(!(await admitted(started, one, sign({ ...good, ...change }))), JSON.stringify(change));
    }
    assert.ok(await admitted(started, one, sign(good)));
  });

  scenario("anonymous = true accepts clients without a token, and none with a bad token", async ({ node, io, ws, sse }) => {
    const one = await node({ auth: { anonymous: true } });
    const client = await io(one).connected();
    const plain = await ws(one).message("welcome").catch(() => undefined);
    if (plain) assert.equal(plain.user, null);
    await client.join("room:a");
    assert.equal((await sse(one, { rooms: ["user:7"] }).answered()).status, 403, "a room of no user");
    const stream = await sse(one, { rooms: ["room:a"] }).answered();
    assert.equal(stream.status, 200);
    await published(one, { room: "room:a", event: "hello", data: 1 });
    await Promise.all([client.event("hello"), stream.event("hello")]);
    assert.ok((await io(one, { token: "not a token" }).refused()).message);
    assert.equal((await sse(one, { token: "not a token", rooms: ["room:a"] }).answered()).status, 401);
  });

  scenario("user values in room names cannot name another room", async ({ node, io, ws }) => {
    const one = await node({
      rooms: [{ match: "tenant:{claims.tenant}", join: "auto" }, { match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "allow" }],
      on: [{ event: "enter", join: "room:{0}", ack: [{ ok: true }] }],
    });
    for (const tenant of ["a:b", "*", "<x>", "{user}", "a\nb", "\u0000"]) {
      const client = io(one, { token: tokenFor("7", { tenant }) });
      const outcome = await until(() => client.errors[0] ?? client.socket.connected, "an outcome");
      assert.notEqual(outcome, true, `tenant ${JSON.stringify(tenant)} was accepted`);
      client.close();
    }
    for (const tenant of [["a"], { a: 1 }, null, undefined]) {
      const nameless = io(one, { token: tokenFor("9", { tenant }) });
      const outcome = await until(() => nameless.errors[0] ?? nameless.socket.connected, "an outcome");
      if (outcome !== true) continue;
      for (const name of ["a", '["a"]', "[object Object]", "null", ""]) await published(one, { room: `tenant:${name}`, event: "leaked", data: 1 });
      await published(one, { room: "user:9", event: "end", data: 1 });
      await nameless.event("end");
      assert.deepEqual(nameless.argsOf("leaked"), [], "a room named by a value that is not a name");
    }
    const client = await io(one, { token: tokenFor("7", { tenant: "a" }) }).connected();
    for (const name of ["a:b", "*", "<x>", "{user}", "a\nb", "\u0000", [1], { a: 1 }, null]) {
      const [{ error }] = await client.ask("enter", name);
      assert.ok(error?.code, `room:${JSON.stringify(name)} was joined`);
    }
    assert.deepEqual(await client.ask("enter", 42), [{ ok: true }]);
    const plain = await ws(one, { token: tokenFor("8", { tenant: "b" }) }).welcomed();
    for (const room of ["tenant:a", "tenant:*", "user:7", "user:<x>"]) assert.equal((await plain.ask({ type: "join", room })).type, "error");
  });

  scenario("/ws: an anonymous client logs in with its first auth message", async ({ node, ws }) => {
    const one = await node({ auth: { anonymous: true } });
    const client = await ws(one).welcomed();
    assert.equal(client.messages[0].user ?? null, null);
    client.send({ type: "auth", token: tokenFor("7") });
    await client.message(({ type, user }) => type === "welcome" && user === "7");
    await published(one, { room: "user:7", event: "own", data: 1 });
    await client.event("own");
    assert.equal(client.eventsOf("own").length, 1);
    await one.metricIs("roomcast_sessions", 1);
  });
});
