// createWebhook behind Express, Fastify, Nest's kind of body parser and Fetch, asked by the real binary; and signatures.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";
import express from "express";
import fastify from "fastify";
import { createWebhook, signWebhook, verifyWebhook } from "../../packages/server/src/index.js";
import { SECRET } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { post, request } from "../harness/http.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const JSON_TYPE = { "content-type": "application/json" };

/** Serves a `(request, response)` function, and resolves with the URL of `/roomcast`. */
async function serve(keep, listener) {
  const server = createServer(listener);
  keep({ close: () => (server.closeAllConnections(), server.close()) });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}/roomcast`;
}

/** A server of Fetch, as Next, Bun, Deno and Hono have it, from Node's. */
function fetchServer(handler) {
  return async (incoming, outgoing) => {
    const body = incoming.method === "GET" ? undefined : incoming;
    const answer = await handler(new Request(`http://localhost${incoming.url}`, { method: incoming.method, headers: incoming.headers, body, duplex: "half" }));
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text());
  };
}

const SERVERS = {
  express: (keep, webhook) => serve(keep, express().use("/roomcast", webhook.express).use(express.json())),
  "express after express.raw": (keep, webhook) => serve(keep, express().use(express.raw({ type: "*/*" })).post("/roomcast", webhook.express)),
  "a parser that keeps rawBody, as Nest's": (keep, webhook) =>
    serve(keep, express().use(express.json({ verify: (request, _, body) => (request.rawBody = body) })).use("/roomcast", webhook.express)),
  "node:http": (keep, webhook) => serve(keep, webhook.express),
  fetch: (keep, webhook) => serve(keep, fetchServer(webhook.fetch)),
  fastify: async (keep, webhook) => {
    const app = fastify();
    app.post("/echo", async ({ body }) => ({ body }));
    await app.register(webhook.fastify, { path: "/roomcast" });
    keep({ close: () => app.close() });
    await app.listen({ port: 0, host: "127.0.0.1" });
    // The plugin leaves the parser of other routes alone.
    const echoed = await post(`http://127.0.0.1:${app.server.address().port}/echo`, { a: 1 });
    assert.deepEqual(echoed.json(), { body: { a: 1 } });
    return `http://127.0.0.1:${app.server.address().port}/roomcast`;
  },
};

const RULES = {
  rooms: [{ match: "chat:<id>", join: "ask" }],
  on: [
    { event: "join_chat", join: "chat:{0}", ack: [{ ok: true }], ack_error: [{ ok: false, error: "{error}" }] },
    { event: "send", forward: true },
    { event: "forgotten", forward: true },
  ],
};

suite("createWebhook", () => {
  for (const [name, start] of Object.entries(SERVERS)) {
    scenario(`${name}: joins, events and notices are answered, and what roomcast did not sign is refused`, async ({ node, io, keep }) => {
      const notices = [];
      const failures = [];
      const webhook = createWebhook({
        secret: ["the next secret", SECRET],
        join: ({ user, room, claims }) => (room === "chat:42" ? claims.member === user : { allow: false, error: "members only" }),
        events: {
          send: ({ args: [text], user }) => {
            if (text === "fail") throw new Error("on purpose");
            return { ack: [{ saved: text, user }], emit: [{ room: "chat:42", event: "sent", data: { text } }] };
          },
        },
        online: ({ user }) => notices.push(`online ${user}`),
        offline: ({ user }) => notices.push(`offline ${user}`),
        onError: (error, call) => failures.push(`${call?.event}: ${error.message}`),
      });
      const url = await start(keep, webhook);
      const started = await node({ backend: { url, secret: SECRET, notify: ["online", "occupied"] }, ...RULES });
      const client = await io(started, { token: tokenFor("7", { member: "7" }) }).connected();
      assert.deepEqual(await client.ask("join_chat", 42), [{ ok: true }]);
      assert.deepEqual(await client.ask("join_chat", 43), [{ ok: false, error: "members only" }]);
      assert.deepEqual(await client.ask("send", "hi"), [{ saved: "hi", user: "7" }]);
      assert.deepEqual(await client.event("sent"), [{ text: "hi" }]);
      assert.equal((await client.ask("send", "fail"))[0].error.code, "backend_error");
      assert.deepEqual(failures, ["send: on purpose"]);
      assert.match((await client.ask("forgotten"))[0].error.message, /no handler for "forgotten"/);
      await until(() => notices.includes("online 7"), "the notice");

      const body = JSON.stringify({ type: "join", room: "chat:42", user: "7", claims: { member: "7" } });
      const ask = async (signature, text = body) => (await post(url, text, signature && { "x-roomcast-signature": signature })).status;
      const good = await signWebhook(body, SECRET);
      assert.equal(await ask(good), 200);
      assert.equal(await ask(await signWebhook(body, "the next secret")), 200);
      assert.equal(await ask(good, body.replace("42", "43")), 401);
      assert.equal(await ask(undefined), 401);
      assert.equal((await request(url, { headers: JSON_TYPE })).status === 200, false);
    });
  }

  scenario("a body that was parsed before is a mistake that says what to change", async ({ keep }) => {
    const failures = [];
    const webhook = createWebhook({ secret: SECRET, onError: ({ message }) => failures.push(message) });
    const url = await serve(keep, express().use(express.json()).use("/roomcast", webhook.express));
    assert.equal((await post(url, { type: "join" }, { "x-roomcast-signature": await signWebhook("{}", SECRET) })).status, 500);
    assert.match(failures[0], /before express\.json\(\)/);
  });
});

test("a signature is of the body, of one of the secrets, and fresh", async () => {
  const body = '{"type":"online","user":"ü"}';
  const now = 1_700_000_000_000;
  const good = await signWebhook(body, "a", now);
  // As `openssl dgst -sha256 -hmac a` has it.
  assert.equal(good, "t=1700000000,v1=6b922f86f53503d4e550aa13ed70c5bf063fb7f013f9036d3a5c609d3c35c02b");
  const verify = (signature, { text = body, secret = "a", at = now, ...options } = {}) => verifyWebhook(text, signature, secret, { now: at, ...options });
  assert.deepEqual(await verify(good), { type: "online", user: "ü" });
  assert.deepEqual(await verify(good, { text: new TextEncoder().encode(body) }), { type: "online", user: "ü" });
  assert.ok(await verify(good, { secret: ["b", "a"] }));
  assert.ok(await verify(good, { at: now + 299_000 }));
  assert.ok(await verify(good, { at: now + 600_000, tolerance: 601 }));
  const last = good.at(-1) === "0" ? "1" : "0";
  for (const [signature, options] of [
    [null],
    [undefined],
    [""],
    ["t=1700000000"],
    [good.toUpperCase()],
    [`${good}00`],
    [good.slice(0, -1) + last],
    [good.replace("1700000000", "1700000001")],
    [good, { text: `${body} ` }],
    [good, { secret: "b" }],
    [good, { secret: ["b", "c"] }],
    [good, { secret: [] }],
    [good, { at: now + 301_000 }],
    [good, { at: now - 301_000 }],
  ]) {
    await assert.rejects(verify(signature, options), { name: "SignatureError", status: 401 }, `${signature} ${JSON.stringify(options)}`);
  }
  await assert.rejects(verify(good, { secret: "" }), /ROOMCAST_BACKEND__SECRET/);
  // Not before the first call: a build loads modules without secrets.
  const errors = [];
  const { status } = await createWebhook({ onError: (error) => errors.push(error) }).handle(body, await signWebhook(body, "another"));
  assert.deepEqual([status, errors.length], [500, 1]);
  assert.match(errors[0].message, /ROOMCAST_BACKEND__SECRET/);
});
