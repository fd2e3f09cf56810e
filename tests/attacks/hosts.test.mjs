// Which Host a request names, and which names reach the log.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon, roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

/** The status of a request whose head is written by hand. */
async function status(s, node, ...lines) {
  const socket = s.raw(node);
  socket.write(`${lines.join("\r\n")}\r\n\r\n`);
  return Number((await socket.head()).split(" ")[1]);
}

suite("hosts", () => {
  scenario("a request without a Host, or with two, is refused", async (s) => {
    const one = await s.node();
    assert.equal(await status(s, one, "GET /health HTTP/1.1"), 400);
    assert.equal(await status(s, one, "GET /health HTTP/1.1", "Host: a", "Host: a"), 400);
    assert.equal(await status(s, one, "GET /health HTTP/1.1", "Host: a"), 200);
    assert.equal(await status(s, one, "GET /health HTTP/1.0"), 200);
    assert.equal(await one.metric('roomcast_refusals_total{reason="host"}'), 2);
  });

  scenario("http.allowed_hosts refuses every other name on every path but /health", async (s) => {
    const one = await s.node({ http: { allowed_hosts: ["127.0.0.1", "app.example.com"] } });
    const paths = ["/metrics", "/socket/ping", "/publish", `/sse?room=room:a&token=${tokenFor("7")}`, "/socket.io/?EIO=4&transport=polling"];
    for (const path of paths) {
      assert.equal(await status(s, one, `GET ${path} HTTP/1.1`, "Host: evil.example"), 421, path);
      assert.notEqual(await status(s, one, `GET ${path} HTTP/1.1`, "Host: app.example.com:8080"), 421, path);
    }
    const socket = s.raw(one);
    await socket.upgrade(`/ws?token=${tokenFor("7")}`, { Host: "evil.example" });
    assert.equal(socket.status, 421);
    assert.equal(await status(s, one, "GET /health HTTP/1.1", "Host: 10.0.0.7:8080"), 200);
    await s.ws(one, { token: tokenFor("7") }).welcomed();
  });

  scenario("the page of `roomcast demo`, which holds tokens, is not read through a domain that leads here", async (s) => {
    const port = await freePort();
    const demo = new Daemon(["demo", "--listen", `127.0.0.1:${port}`]);
    s.serve({ close: () => demo.stop() });
    const url = `http://127.0.0.1:${port}/`;
    await until(() => request(`${url}health`).catch(() => false), "the demo");
    for (const [host, expected] of [["rebound.example", 421], [`localhost:${port}`, 200], [`[::1]:${port}`, 200]]) {
      const answer = await request(url, { headers: { host } });
      assert.equal(answer.status, expected, host);
      assert.equal(answer.text.includes("eyJ"), expected === 200, "tokens");
    }
  });

  scenario("control characters in the name of an event do not begin a line of the log", async (s) => {
    const one = await s.node({ log: { level: "debug" } });
    const client = s.io(one, { token: tokenFor("7"), transports: ["websocket"] });
    await client.connected();
    const forged = "2026-01-01T00:00:00Z ERROR forged";
    await client.ask(`x\n${forged}\u001b]0;title\u0007`, 1);
    await until(() => one.output.includes("forged"), "the name in the log");
    assert.ok(!one.output.split("\n").some((line) => line.startsWith(forged)), one.output);
    assert.ok(!one.output.includes("\u001b]"));
  });

  scenario("`roomcast check` shows no query of jwks_url and backend.url", async () => {
    const env = {
      ROOMCAST_AUTH__JWKS_URL: "http://127.0.0.1:9/keys?key=hidden-one",
      ROOMCAST_AUTH__ALGORITHMS: "RS256",
      ROOMCAST_BACKEND__URL: "http://127.0.0.1:9/hook?key=hidden-two",
      ROOMCAST_BACKEND__SECRET: "a secret",
    };
    const { output } = await roomcast(["check"], env);
    assert.match(output, /127\.0\.0\.1:9\/keys/);
    assert.match(output, /127\.0\.0\.1:9\/hook/);
    assert.doesNotMatch(output, /hidden/);
  });
});
