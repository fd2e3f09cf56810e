// A refusal that is sent before the request's body was read arrives, whatever the client and a proxy do.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import net from "node:net";
import { promisify } from "node:util";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { Polling, enginePath } from "../harness/engine.mjs";
import { startNginx } from "../harness/nginx.mjs";
import { command, publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const run = promisify(execFile);
const token = tokenFor("7");
const MEGABYTE = 1 << 20;
const ROUNDS = 5;

/** A client that writes its whole request, however long it takes, before it reads: Python's, Java's and PHP's do. */
async function writeThenRead(node, head, body, { chunked = false } = {}) {
  const socket = net.connect(node.port ?? Number(new URL(node.url).port), "127.0.0.1");
  const seen = { received: "", error: undefined, closed: false };
  socket.on("error", (error) => (seen.error = error)).on("close", () => (seen.closed = true));
  socket.pause();
  socket.write(head);
  const pieces = Math.ceil(body.length / MEGABYTE);
  for (let n = 0; n < pieces && !seen.closed; n += 1) {
    const piece = body.subarray(n * MEGABYTE, (n + 1) * MEGABYTE);
    if (chunked) socket.write(`${piece.length.toString(16)}\r\n`);
    const room = socket.write(piece);
    if (chunked) socket.write("\r\n");
    if (!room) await until(() => seen.closed || socket.writableLength === 0, "the kernel taking what was written");
  }
  if (chunked) socket.write("0\r\n\r\n");
  socket.on("data", (data) => (seen.received += data)).resume();
  await until(() => seen.closed, () => `the end; got ${seen.received.slice(0, 300)}`);
  socket.destroy();
  assert.equal(seen.error, undefined, `${seen.error}; got ${seen.received.slice(0, 100)}`);
  return seen.received;
}

const head = (target, length, more = "") => `POST ${target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${length === undefined ? "Transfer-Encoding: chunked" : `Content-Length: ${length}`}\r\n${more}\r\n`;
const AUTHORIZED = `Authorization: Bearer ${KEY}\r\n`;
const statusOf = (answer) => Number(answer.split(" ")[1]);

suite("bodies that are refused unread", () => {
  scenario("a client that writes the whole body before it reads gets the answer, on every path", async ({ node }) => {
    const one = await node();
    const polling = await new Polling(one).open();
    await polling.join({ token });
    const session = enginePath({ sid: polling.sid });
    for (const [target, status, size, more] of [
      ["/publish", 413, 12 * MEGABYTE, AUTHORIZED],
      ["/publish", 401, 12 * MEGABYTE, "Authorization: Bearer wrong\r\n"],
      ["/join", 413, 2 * MEGABYTE, AUTHORIZED],
      ["/users", 413, 2 * MEGABYTE, AUTHORIZED],
      ["/nowhere", 404, 12 * MEGABYTE, ""],
      ["/health", 405, 12 * MEGABYTE, ""],
      [session, 413, 12 * MEGABYTE, ""],
      [enginePath({ sid: "AAAAAAAAAAAAAAAAAAAA" }), 400, 12 * MEGABYTE, ""],
      [enginePath(), 400, 12 * MEGABYTE, ""],
    ]) {
      const body = Buffer.alloc(size, "x");
      for (let round = 0; round < ROUNDS; round += 1) {
        const answer = await writeThenRead(one, head(target, size, more), body);
        assert.equal(statusOf(answer), status, `${target}: ${answer.slice(0, 200)}`);
        assert.match(answer, /\r\nconnection: close\r\n/i);
      }
      if (status !== 413 || target === session) {
        const answer = await writeThenRead(one, head(target, undefined, more), body, { chunked: true });
        assert.equal(statusOf(answer), status, `chunked, ${target}`);
      }
    }
    assert.equal((await polling.post('420["echo",1]')).status, 200, "the session that got 413 goes on");
  });

  scenario("`Expect: 100-continue`: no 100 is sent, and a client that sends the body nevertheless gets the answer", async ({ node, raw }) => {
    const one = await node();
    const size = 12 * MEGABYTE;
    for (const [more, status] of [[AUTHORIZED, 413], ["", 401]]) {
      const expecting = head("/publish", size, `${more}Expect: 100-continue\r\n`);
      const waiting = raw(one);
      waiting.write(expecting);
      const answer = await waiting.untilClosed();
      assert.equal(statusOf(answer), status, answer.slice(0, 200));
      assert.doesNotMatch(answer, /100 Continue/);
      assert.equal(statusOf(await writeThenRead(one, expecting, Buffer.alloc(size, "x"))), status);
    }
    const { stdout } = await run("curl", ["-s", "-o", "/dev/null", "--expect100-timeout", "60", "-w", "%{http_code} %{size_upload}", "-H", "Expect: 100-continue", "-H", `Authorization: Bearer ${KEY}`, "--data-binary", `@${process.execPath}`, `${one.url}/publish`]);
    assert.equal(stdout, "413 0", "curl waits, and sends nothing");
    const small = JSON.stringify({ room: "room:a", event: "e", data: "x".repeat(100_000) });
    const accepted = await run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect: 100-continue", "-H", `Authorization: Bearer ${KEY}`, "--data-binary", small, `${one.url}/publish`]);
    assert.equal(accepted.stdout, "200", "a body that fits is asked for");
  });

  scenario("Node's fetch and http, and curl, get the answer", async ({ node }) => {
    const one = await node();
    const body = "x".repeat(12 * MEGABYTE);
    for (let round = 0; round < ROUNDS; round += 1) {
      const answer = await publish(one, body);
      assert.equal(answer.status, 413);
      assert.equal(answer.json().error.code, "body_too_big");
      const fetched = await fetch(`${one.url}/publish`, { method: "POST", body, headers: { authorization: `Bearer ${KEY}` } });
      assert.equal(fetched.status, 413);
      await fetched.text();
      const { stdout } = await run("curl", ["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Expect:", "--data-binary", `@${process.execPath}`, `${one.url}/publish`]);
      assert.equal(stdout, "401");
    }
    await published(one, { room: "room:a", event: "e" });
  });

  scenario("the admin endpoints answer 413 to a body over their limit", async ({ node }) => {
    const one = await node();
    for (const path of ["/join", "/leave", "/disconnect", "/users"]) {
      const answer = await command(one, path, Buffer.alloc(600_000, " "));
      assert.equal(answer.status, 413, path);
      assert.equal(answer.json().error.code, "body_too_big", path);
    }
    await one.metricIs('roomcast_refusals_total{reason="size"}', 4);
  });

  scenario("behind nginx, with and without request buffering, the answer is never 502", async ({ node, serve }) => {
    const one = await node();
    const body = Buffer.alloc(12 * MEGABYTE, "x");
    for (const buffering of ["on", "off"]) {
      const nginx = serve(await startNginx(one, { buffering }));
      for (let round = 0; round < ROUNDS; round += 1) {
        assert.equal((await publish(nginx, body)).status, 413, buffering);
        assert.equal((await command(nginx, "/publish", body, { key: "wrong" })).status, 401, buffering);
        assert.equal((await command(nginx, "/nowhere", body)).status, 404, buffering);
        const polling = await new Polling(nginx).open();
        assert.equal((await polling.post(body.toString())).status, 413, buffering);
        assert.equal((await polling.post("1")).status, 200, "the session goes on");
        await published(nginx, { room: "room:a", event: "e" });
      }
    }
  });

  scenario("polling on another node gets 413, and the session continues", async (s) => {
    const store = await s.redis();
    const [here, there] = await nodesOn(s, store, 2);
    const polling = await new Polling(here).open();
    await polling.join({ token });
    const size = 12 * MEGABYTE;
    for (let round = 0; round < ROUNDS; round += 1) {
      const answer = await writeThenRead(there, head(enginePath({ sid: polling.sid }), size), Buffer.alloc(size, "x"));
      assert.equal(statusOf(answer), 413, answer.slice(0, 200));
    }
    assert.equal((await polling.post('420["echo",1]')).status, 200);
  });

  scenario("a client that never stops sending is cut, and other clients notice nothing", async ({ node, keep }) => {
    const one = await node();
    const socket = net.connect({ port: one.port, host: "127.0.0.1", allowHalfOpen: true }).on("error", () => {});
    keep({ close: () => socket.destroy() });
    let sent = 0;
    const piece = Buffer.alloc(4 * MEGABYTE, "x");
    socket.write(head("/publish", 2 ** 40, AUTHORIZED));
    const pump = () => {
      while (!socket.destroyed && socket.write(piece)) sent += piece.length;
      sent += piece.length;
    };
    socket.on("drain", pump);
    pump();
    await until(() => socket.destroyed, () => `the end; sent ${sent}`, 90_000);
    assert.ok(sent < 400 * MEGABYTE, `${sent} bytes were taken`);
    await published(one, { room: "room:a", event: "e" });
  });
});
