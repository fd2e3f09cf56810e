// TCP connections that send nothing, or no token: they close each other, and nobody else.
import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { describe } from "node:test";
import { until } from "../harness/deadline.mjs";
import { BINARY } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const refusals = (node, reason) => node.metric(`roomcast_refusals_total{reason="${reason}"}`);

const ATTACKER = "127.0.0.2";

/** A connection of the attacker that sends nothing, closed with the test. */
function connection(s, port) {
  const socket = net.connect({ port, host: "127.0.0.1", localAddress: ATTACKER });
  socket.on("error", () => {});
  socket.resume();
  return s.keep({ socket, close: () => socket.destroy() }).socket;
}

function idle(s, port, count) {
  const sockets = Array.from({ length: count }, () => connection(s, port));
  return {
    connected: () => until(() => sockets.every((socket) => !socket.connecting), `${count} connections`),
    open: () => sockets.filter((socket) => !socket.closed && !socket.readableEnded).length,
  };
}

/** A script that runs roomcast with few open files. */
function withFiles(s, count) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-files-"));
  s.keep({ close: () => fs.rmSync(directory, { recursive: true }) });
  const file = path.join(directory, "roomcast");
  fs.writeFileSync(file, `#!/bin/sh\nulimit -n ${count}\nexec '${BINARY}' "$@"\n`, { mode: 0o755 });
  return file;
}

const connects = async (s, node, user) => s.io(node, { token: tokenFor(user), transports: ["websocket"] }).connected();

describe("idle sockets", { concurrency: 1 }, () => {
  scenario("1,300 of them with 1,024 open files: the node serves clients, newcomers and operators", async (s) => {
    const admin = await freePort();
    const one = await s.node({ admin_listen: `127.0.0.1:${admin}` }, { binary: withFiles(s, 1_024), ready: true });
    const operators = { url: `http://127.0.0.1:${admin}` };
    const bystander = await witness(s, one, { publisher: operators });
    await bystander.during((async () => {
      const flood = idle(s, one.port, 1_300);
      await flood.connected();
      await until(() => flood.open() < 1_024, () => `${flood.open()} are open`);
      await connects(s, one, "newcomer");
    })());
    const metrics = await (await fetch(`${operators.url}/metrics`)).text();
    assert.match(metrics, /roomcast_refusals_total\{reason="unauthenticated"\} [1-9]/);
    assert.doesNotMatch(one.output, /Too many open files/);
    bystander.unharmed();
  });

  scenario("with no file left at all, the node closes idle ones and goes on accepting", async (s) => {
    const other = await s.node();
    const atRest = fs.readdirSync(`/proc/${other.process.pid}/fd`).length;
    const one = await s.node({}, { binary: withFiles(s, atRest + 6) });
    const flood = idle(s, one.port, 100);
    const began = Date.now();
    await flood.connected();
    await until(() => one.output.includes("Too many open files"), "a node without files");
    for (let n = 0; n < 5; n += 1) assert.equal((await one.get("/health")).status, 200);
    assert.ok(await refusals(one, "connections"));
    // Five lines in ten seconds.
    const most = 5 * (1 + Math.ceil((Date.now() - began) / 10_000));
    assert.ok(one.output.split("Too many open files").length - 1 <= most, `the warning is limited: ${one.output}`);
  });

  scenario("more of them than limits.unauthenticated close the oldest, and those that stay are closed by http.head_timeout", async (s) => {
    const one = await s.node({ limits: { unauthenticated: 50 }, http: { head_timeout: "8s" } });
    const bystander = await witness(s, one);
    const flood = idle(s, one.port, 300);
    await bystander.during((async () => {
      await flood.connected();
      await until(() => flood.open() <= 50, () => `${flood.open()} are open`);
      assert.ok(flood.open() > 0);
      await connects(s, one, "newcomer");
    })());
    await until(() => flood.open() === 0, "the end of those that stay", 20_000);
    await until(() => refusals(one, "incomplete"), "counted");
    bystander.unharmed();
  });

  scenario("they count against connections_per_ip, and a newcomer of their address takes the place of the oldest", async (s) => {
    const one = await s.node({ limits: { connections_per_ip: 20 }, http: { head_timeout: "30s" } });
    const bystander = await witness(s, one);
    const flood = idle(s, one.port, 100);
    await bystander.during((async () => {
      await flood.connected();
      await until(() => flood.open() === 20, () => `${flood.open()} are open`);
      const newcomer = connection(s, one.port);
      newcomer.write(`GET /sse?room=room:a&token=${tokenFor("8")} HTTP/1.1\r\nHost: x\r\n\r\n`);
      const [answer] = await once(newcomer, "data");
      assert.match(answer.toString(), /^HTTP\/1.1 200/);
    })());
    for (let n = 0; n < 19; n += 1) await connects(s, one, `${n}`);
    const refused = s.raw(one);
    await refused.upgrade(`/ws?token=${tokenFor("7")}`);
    assert.equal(refused.status, 429);
    bystander.unharmed();
  });

  scenario("unfinished heads of 60 KB each hold an eighth of limits.memory together", async (s) => {
    const one = await s.node({ limits: { memory: "160MB" }, http: { head_timeout: "8s" } });
    const bystander = await witness(s, one);
    const sockets = Array.from({ length: 400 }, () => connection(s, one.port));
    await bystander.during((async () => {
      for (const socket of sockets) socket.write(`GET / HTTP/1.1\r\nHost: x\r\nx: ${"x".repeat(60_000)}`);
      await until(async () => refusals(one, "headers"), "heads that are refused");
    })());
    const held = await one.metric('roomcast_memory_bytes{kind="heads"}');
    assert.ok(held <= 21_000_000, `${held} bytes are held`);
    assert.ok(sockets.some((socket) => !socket.closed), "those within the bound stay");
    await until(async () => (await one.metric('roomcast_memory_bytes{kind="heads"}')) < 1_000, "the end of the heads", 20_000);
    bystander.unharmed();
  });

  scenario("a WebSocket without a token has connect_timeout from its TCP connection on", async (s) => {
    const one = await s.node({ socketio: { connect_timeout: "9s" } });
    await Promise.all(["/ws", "/socket.io/?EIO=4&transport=websocket"].map(async (path) => {
      const socket = s.raw(one);
      const begun = Date.now();
      await until(() => Date.now() > begun + 6_000, "a client that takes its time");
      await socket.upgrade(path);
      const upgraded = Date.now();
      await socket.closeCode();
      // Three seconds are left of nine: halfway between them is time for a machine that is busy.
      assert.ok(Date.now() - upgraded < 6_500, `${path} had ${Date.now() - upgraded} ms after its request`);
    }));
    assert.equal(await one.metric('roomcast_closes_total{reason="connect_timeout"}'), 2);
  });

  scenario("WebSockets without a token close the oldest of them, and a newcomer is let in", async (s) => {
    const one = await s.node({ limits: { unauthenticated: 40, connections: 60 } });
    const bystander = await witness(s, one);
    await bystander.during((async () => {
      for (let n = 0; n < 200; n += 1) await s.raw(one).upgrade("/ws");
      await connects(s, one, "newcomer");
    })());
    await until(async () => (await one.connections("ws")) <= 40, "40 of them at most");
    await until(async () => (await one.metric('roomcast_closes_total{reason="evicted"}')) >= 160, "the others evicted");
    assert.ok(await refusals(one, "unauthenticated"));
    bystander.unharmed();
  });
});
