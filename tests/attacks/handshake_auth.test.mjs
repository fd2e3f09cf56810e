// What a client sends before its token is accepted: no more than a handshake needs is read, and none of it is kept.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { until } from "../harness/deadline.mjs";
import { Polling } from "../harness/engine.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const filler = (bytes) => "x".repeat(bytes);
const held = (node) => node.metric('roomcast_memory_bytes{kind="handshake"}');
const refusals = (node) => node.metric('roomcast_handshakes_total{result="auth_too_big"}');

describe("handshake auth", { concurrency: 1 }, () => {
  for (const transport of ["websocket", "polling"]) {
    scenario(`over limits.auth_bytes, by ${transport}: the client gets auth_too_big`, async (s) => {
      const one = await s.node();
      const bystander = await witness(s, one);
      const client = s.io(one, { auth: { token: tokenFor("7"), filler: filler(9_000) }, transports: [transport], reconnection: false });
      assert.equal((await client.refused()).data.code, "auth_too_big");
      assert.ok(!client.socket.connected);
      assert.equal(await refusals(one), 1);
      bystander.unharmed();
    });
  }

  scenario("a CONNECT of 1 MB is answered before it is read, and its WebSocket closed", async (s) => {
    const one = await s.node();
    const bystander = await witness(s, one);
    const client = s.io(one, { auth: { token: tokenFor("7"), filler: filler(980_000) }, transports: ["websocket"], reconnection: false });
    assert.equal((await client.refused()).data.code, "auth_too_big");
    await until(async () => (await one.metric('roomcast_closes_total{reason="too_big"}')) === 1, "the end of its connection");
    const polling = await new Polling(one).open();
    const answer = await polling.post(`40${JSON.stringify({ token: tokenFor("7"), filler: filler(980_000) })}`);
    assert.equal(answer.status, 413);
    assert.equal(answer.json().error.code, "auth_too_big");
    bystander.unharmed();
  });

  scenario("/ws: a first message of 100 KB is refused, and a token over 8,192 bytes", async (s) => {
    const one = await s.node();
    const large = s.ws(one);
    await until(() => large.socket.readyState === 1, "an open connection");
    large.send({ type: "auth", token: filler(100_000) });
    assert.equal((await large.ended()).code, 1009);
    assert.equal(large.messages.find(({ type }) => type === "error").code, "auth_too_big");
    const long = s.ws(one);
    await until(() => long.socket.readyState === 1, "an open connection");
    long.send({ type: "auth", token: filler(9_000) });
    assert.equal((await long.ended()).code, 4401);
    assert.match(long.messages.find(({ type }) => type === "error").message, /longer than 8192/);
  });

  scenario("a token over 8,192 bytes in the query is refused at CONNECT, with its reason", async (s) => {
    const one = await s.node();
    const client = s.io(one, { query: { token: filler(9_000) }, transports: ["websocket"], reconnection: false });
    assert.match((await client.refused()).message, /longer than 8192/);
  });

  scenario("what the rules do not use is not kept, and what they use is", async (s) => {
    const one = await s.node({
      on: [{ event: "lang", ack: ["{auth.lang}"] }],
    });
    const auth = { token: tokenFor("7"), lang: "de", filler: filler(7_500) };
    const clients = await Promise.all(Array.from({ length: 20 }, () => s.io(one, { auth, transports: ["websocket"] }).connected()));
    for (const client of clients) assert.deepEqual(await client.ask("lang"), ["de"]);
    const bytes = await held(one);
    assert.ok(bytes > 0 && bytes < 20 * 100, `${bytes} bytes are held`);
  });
});
