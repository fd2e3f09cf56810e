// Keep-alive connections: how long they may be idle, on both listeners and behind nginx.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { startNginx } from "../harness/nginx.mjs";
import { freePort } from "../harness/port.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const REQUEST = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";

/** Sends a request and resolves with how long the connection stays open after it, in ms. */
async function idleTime(connection) {
  const asked = Date.now();
  connection.write(REQUEST);
  await connection.head();
  await until(() => connection.closed, "the end of the idle connection");
  return Date.now() - asked;
}

suite("keep-alive connections", () => {
  scenario("http.idle_timeout closes an idle connection on both listeners", async ({ node, raw }) => {
    const admin = await freePort();
    const one = await node({ admin_listen: `127.0.0.1:${admin}`, http: { idle_timeout: "2s" } });
    for (const port of [one.port, admin]) {
      const idle = await idleTime(raw({ port }));
      assert.ok(idle > 1_900 && idle < 40_000, `open for ${idle} ms`);
    }
  });

  scenario("a connection with a partial request head is not idle", async ({ node, raw }) => {
    const one = await node({ http: { idle_timeout: "4s" } });
    const [slow, idle] = [raw(one), raw(one)];
    for (const connection of [slow, idle]) {
      connection.write(REQUEST);
      await connection.head();
      connection.received = Buffer.alloc(0);
    }
    slow.write(REQUEST.slice(0, 20));
    await until(() => idle.closed, "the end of the idle connection");
    assert.ok(!slow.closed);
    slow.write(REQUEST.slice(20));
    assert.match(await slow.head(), /^HTTP\/1\.1 200 /);
  });

  scenario("nginx, which keeps connections for a shorter time, never uses one that the node has closed", async ({ node, ws, serve }) => {
    const one = await node({ http: { idle_timeout: "15s" } });
    const nginx = serve(await startNginx(one, { keepalive: "1s" }));
    const watcher = await ws(one, { token: tokenFor("7") }).welcomed();
    const begun = Date.now();
    // Pauses around the second after which nginx closes its own connection.
    for (let count = 0; count < 12; count += 1) {
      const due = begun + count * 950 + (count % 4) * 30;
      await until(() => Date.now() >= due, "the next request's time", 5_000);
      await published(nginx, { room: "user:7", event: "e", data: count });
    }
    await until(() => watcher.eventsOf("e").length === 12, "all twelve events, each once");
    assert.equal((await command(nginx, "/publish", {})).status, 400, "the proxy passes refusals on");
  });
});
