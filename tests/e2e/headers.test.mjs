// Requests with many or long headers: which are accepted, and that a page can read the refusal.
import assert from "node:assert/strict";
import { enginePath, engineSocket } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { assertError, command } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const ORIGIN = "https://app.example.com";
const CORS = { cors: { origins: [ORIGIN] } };

/** So many headers, those of the client besides (`host` and `connection`). */
const headers = (count, more = {}) => {
  const all = { origin: ORIGIN, ...more };
  for (let n = Object.keys(all).length + 2; n < count; n += 1) all[`x-proxy-${n}`] = `${n}`;
  return all;
};

function assertReadable(answer, code) {
  assertError(answer, 431, code);
  assert.equal(answer.headers["access-control-allow-origin"], ORIGIN);
}

suite("headers", () => {
  scenario("100 headers are accepted on every path, and 101 get a 431 that a page can read", async (s) => {
    const one = await s.node(CORS);
    for (const count of [65, 100]) {
      assert.equal((await request(one.url + enginePath(), { headers: headers(count) })).status, 200);
      assert.equal((await s.sse(one, { token, rooms: ["room:a"], headers: headers(count - 1) }).answered()).status, 200);
      const own = { Upgrade: "", Connection: "", "Sec-WebSocket-Version": "", "Sec-WebSocket-Key": "" };
      const more = Object.fromEntries(Object.entries(headers(count - Object.keys(own).length + 1)));
      assert.equal(s.keep(await engineSocket(one, {}, more)).status, 101);
      assert.equal((await command(one, "/publish", { room: "room:a", event: "e" }, { headers: headers(count - 4) })).status, 200);
    }
    assertReadable(await request(one.url + enginePath(), { headers: headers(101) }), "too_many_headers");
    assertReadable(await request(`${one.url}/sse?room=a&token=${token}`, { headers: headers(500) }), "too_many_headers");
    assertReadable(await request(one.url + enginePath(), { method: "OPTIONS", headers: headers(101, { "access-control-request-method": "GET" }) }), "too_many_headers");
    assertError(await command(one, "/publish", { room: "room:a", event: "e" }, { headers: headers(120) }), 431, "too_many_headers");
    assertError(await request(`${one.url}/health`, { headers: headers(101) }), 431, "too_many_headers");
  });

  scenario("a head that is too long is refused", async ({ node }) => {
    const one = await node(CORS);
    assertReadable(await request(one.url + enginePath(), { headers: headers(5, { cookie: "x".repeat(33_000) }) }), "head_too_long");
    assertReadable(await request(one.url + enginePath({ token: "x".repeat(33_000) }), { headers: headers(5) }), "head_too_long");
    assert.equal((await request(one.url + enginePath(), { headers: headers(5, { cookie: "x".repeat(30_000) }) })).status, 200);
    for (const size of [70_000, 2_000_000]) {
      for (let round = 0; round < 5; round += 1) {
        assert.equal((await request(one.url + enginePath(), { headers: headers(5, { cookie: "x".repeat(size) }) })).status, 431);
      }
    }
  });

  scenario("`limits.headers` sets the number of accepted headers", async ({ node }) => {
    const few = await node({ ...CORS, limits: { headers: 20 } });
    assert.equal((await request(few.url + enginePath(), { headers: headers(20) })).status, 200);
    assertReadable(await request(few.url + enginePath(), { headers: headers(21) }), "too_many_headers");
    const many = await node({ ...CORS, limits: { headers: 500 } });
    assert.equal((await request(many.url + enginePath(), { headers: headers(500) })).status, 200);
  });
});
