// Which pages may connect: the same origin behind proxies, subdomains, and pages without a host.
import assert from "node:assert/strict";
import { enginePath, engineSocket } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");

/** The statuses of polling, `/sse`, a WebSocket on the Engine.IO path and one on `/ws`. */
async function statuses(s, node, headers) {
  const socket = async (open) => {
    const raw = await open();
    return raw.status;
  };
  const polling = await request(node.url + enginePath(), { headers });
  const sse = await s.sse(node, { token, rooms: ["room:a"], headers }).answered();
  const engine = await socket(async () => s.keep(await engineSocket(node, {}, headers)));
  const plain = await socket(async () => {
    const raw = s.raw(node);
    await raw.upgrade("/ws", headers);
    return raw;
  });
  return [polling.status, sse.status, engine, plain];
}

const LET_IN = [200, 200, 101, 101];
const REFUSED = [403, 403, 403, 403];

suite("origins", () => {
  scenario("the same origin is accepted, with or without the default port", async (s) => {
    const node = await s.node();
    for (const [host, origin] of [
      ["app.test:443", "https://app.test"],
      ["app.test", "https://app.test:443"],
      ["APP.test:80", "http://app.test"],
      ["app.test:8443", "https://app.test:8443"],
    ]) {
      assert.deepEqual(await statuses(s, node, { Host: host, origin }), LET_IN, `${host} ${origin}`);
    }
    for (const [host, origin] of [
      ["app.test:80", "https://app.test"],
      ["app.test", "https://app.test:8443"],
      ["app.test", "https://evil.test"],
      ["app.test", "null"],
    ]) {
      assert.deepEqual(await statuses(s, node, { Host: host, origin }), REFUSED, `${host} ${origin}`);
    }
  });

  scenario("listed subdomains, sandboxed pages and files are accepted", async (s) => {
    const node = await s.node({ cors: { origins: ["https://*.example.com", "null", "file://"] } });
    for (const origin of ["https://a.example.com", "https://a.b.example.com:443", "null", "file://"]) {
      assert.deepEqual(await statuses(s, node, { origin }), LET_IN, origin);
      const { headers } = await request(node.url + enginePath(), { headers: { origin } });
      assert.equal(headers["access-control-allow-origin"], origin);
    }
    for (const origin of ["https://example.com", "http://a.example.com", "https://a.example.com.evil.io", "https://evilexample.com"]) {
      assert.deepEqual(await statuses(s, node, { origin }), REFUSED, origin);
    }
  });

  scenario("cors.origins can be a list in the environment", async (s) => {
    const node = await s.node({}, { env: { ROOMCAST_CORS__ORIGINS: "https://*.example.com, null" } });
    assert.deepEqual(await statuses(s, node, { origin: "https://a.example.com" }), LET_IN);
    assert.deepEqual(await statuses(s, node, { origin: "null" }), LET_IN);
    assert.deepEqual(await statuses(s, node, { origin: "file://" }), REFUSED);
  });
});
