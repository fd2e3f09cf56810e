// http.proxy_protocol: a proxy writes the client's address before the client's bytes.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import tls from "node:tls";
import { makeCertificate } from "../harness/certificate.mjs";
import { configure, toml } from "../harness/config.mjs";
import { until, within } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon, metricOf, roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const EC = makeCertificate();
const SIGNATURE = Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1");
const LOCAL = v2(0x20, 0, Buffer.alloc(0));
const range = (count) => Array.from({ length: count }, (_, n) => n);

function v2(kind, family, rest) {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(rest.length);
  return Buffer.concat([SIGNATURE, Buffer.of(kind, family), length, rest]);
}

const v1Of = (address) => `PROXY TCP4 ${address} 10.0.0.1 4711 80\r\n`;
const v2Of = (address, more = "") => v2(0x21, 0x11, Buffer.concat([Buffer.from([...address.split(".").map(Number), 10, 0, 0, 1, 18, 103, 0, 80]), Buffer.from(more)]));

/** A node whose `listen` expects the header, and what `admin_listen` shows of it. */
async function behind(s, { http, ...config } = {}) {
  const admin = `127.0.0.1:${await freePort()}`;
  // The harness asks `listen` for readiness, which has no header here.
  const node = await startBehind(s, { admin_listen: admin, http: { proxy_protocol: true, ...http }, ...config });
  const metric = (series) => metricOf(`http://${admin}`, series);
  return Object.assign(node, { admin, refusals: (reason) => metric(`roomcast_refusals_total{reason="${reason}"}`) });
}

async function startBehind(s, config) {
  const port = await freePort();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-behind-"));
  const file = path.join(directory, "roomcast.toml");
  fs.writeFileSync(file, toml({ listen: `127.0.0.1:${port}`, ...configure(config) }));
  const daemon = new Daemon(["serve", "--config", file]);
  s.serve({ close: async () => (await daemon.stop(), daemon.assertNoPanic(), fs.rmSync(directory, { recursive: true })) });
  await until(async () => (await request(`http://${config.admin_listen}/health`).catch(() => undefined))?.status === 200, () => `a ready node; ${daemon.output}`);
  return Object.assign(daemon, { port, file, url: `http://127.0.0.1:${port}`, socketUrl: `ws://127.0.0.1:${port}` });
}

/** The status of a /ws handshake behind this header; 0: closed without an answer. */
async function status(s, node, ...pieces) {
  const raw = s.raw(node);
  for (const [index, piece] of pieces.entries()) {
    if (index > 0) await new Promise((resolve) => setImmediate(resolve));
    raw.write(piece);
  }
  await raw.upgrade(`/ws?token=${token}`).catch(() => {});
  return raw.status ?? 0;
}

/** HAProxy in front, which passes on TCP. */
async function haproxy(s, node, version) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-haproxy-"));
  const port = await freePort();
  const file = path.join(directory, "configuration");
  fs.writeFileSync(file, `
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 75s
    timeout server 75s
frontend public
    bind 127.0.0.1:${port}
    default_backend roomcast
backend roomcast
    server roomcast1 127.0.0.1:${node.port} ${version} check inter 1s fall 10 check-send-proxy
`);
  const daemon = spawn("haproxy", ["-db", "-f", file], { env: { PATH: `${process.env.PATH}:/usr/sbin` }, stdio: "ignore" });
  const exited = new Promise((resolve) => daemon.once("close", resolve));
  s.serve({ close: async () => (daemon.kill("SIGTERM"), await within(exited, "HAProxy ending"), fs.rmSync(directory, { recursive: true })) });
  return { port, url: `http://127.0.0.1:${port}`, socketUrl: `ws://127.0.0.1:${port}` };
}

suite("proxy_protocol", () => {
  scenario("both versions name the client, whose address is counted; LOCAL and UNKNOWN leave the proxy's", async (s) => {
    const one = await behind(s, { limits: { connections_per_ip: 2 } });
    const extensions = `\x04\x04\x00${"x".repeat(1024)}`;
    assert.equal(await status(s, one, v1Of("203.0.113.7")), 101);
    assert.equal(await status(s, one, v2Of("203.0.113.7", extensions)), 101, "what a proxy adds is skipped");
    assert.equal(await status(s, one, v2Of("203.0.113.7")), 429);
    assert.equal(await status(s, one, "PROXY TCP6 2001:db8::7 ::1 4711 80\r\n"), 101);
    assert.equal(await status(s, one, v2Of("198.51.100.9")), 101);
    assert.equal(await status(s, one, LOCAL), 101);
    assert.equal(await status(s, one, "PROXY UNKNOWN\r\n"), 101);
    assert.equal(await status(s, one, LOCAL), 429, "the proxy is a client like others");
    await one.says("203.0.113.7 /ws");
  });

  scenario("a header that comes in pieces, and together with the request", async (s) => {
    const one = await behind(s);
    const header = v2Of("203.0.113.7");
    assert.equal(await status(s, one, header.subarray(0, 5), header.subarray(5, 20), header.subarray(20)), 101);
    assert.equal(await status(s, one, "PROXY TCP4 203.0", ".113.7 10.0.0.1 4711 8", "0\r\n"), 101);
    const whole = s.raw(one);
    whole.write(Buffer.concat([header, Buffer.from("GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")]));
    assert.match(await whole.untilClosed(), /^HTTP\/1\.1 200/);
  });

  scenario("a connection without the header is closed without an answer, counted and logged; so is half a header after head_timeout", async (s) => {
    const one = await behind(s, { http: { head_timeout: "3s" } });
    const wrong = ["", "PROXY TCP4 nonsense\r\n", `PROXY TCP4 ${"1".repeat(200)}`, v2(0x21, 0x11, Buffer.alloc(4)), v2(0x21, 0x11, Buffer.alloc(60_000))];
    for (const bytes of wrong) assert.equal(await status(s, one, bytes), 0, String(bytes).slice(0, 40));
    await until(async () => (await one.refusals("proxy_header")) === wrong.length, "each counted");
    const half = s.raw(one);
    half.write(SIGNATURE);
    assert.equal(await half.untilClosed(), "");
    await until(async () => (await one.refusals("proxy_header")) === wrong.length + 1, "half a header counted");
    await one.says(/refused: .*PROXY protocol/);
    assert.equal(await status(s, one, LOCAL), 101);
  });

  scenario("a proxy behind the proxy is believed if it is trusted", async (s) => {
    const one = await behind(s, { http: { trusted_proxies: ["10.9.0.0/16"] }, limits: { connections_per_ip: 2 } });
    const named = async (from, client) => {
      const raw = s.raw(one);
      raw.write(v2Of(from));
      await raw.upgrade(`/ws?token=${token}`, { "X-Forwarded-For": client });
      return raw.status;
    };
    for (const n of range(4)) assert.equal(await named("10.9.0.1", `203.0.113.${n}`), 101);
    for (const n of range(2)) assert.equal(await named("198.51.100.9", `203.0.113.${n}`), 101);
    assert.equal(await named("198.51.100.9", "203.0.113.9"), 429);
  });

  for (const version of ["send-proxy", "send-proxy-v2"]) {
    scenario(`HAProxy with ${version}: clients are counted by their own address, and its health checks pass`, async (s) => {
      const one = await behind(s, { limits: { connections_per_ip: 2 } });
      const proxy = await haproxy(s, one, version);
      const arrives = async (localAddress) => {
        const client = s.ws(proxy, { token, localAddress });
        await until(() => client.end ?? client.messages.length, "an answer");
        return client.messages[0]?.type ?? client.end.status;
      };
      await until(async () => (await arrives("127.0.0.9")) === "welcome", "HAProxy forwarding");
      for (const address of ["127.0.0.3", "127.0.0.4"]) {
        for (const _ of range(2)) assert.equal(await arrives(address), "welcome");
        assert.equal(await arrives(address), 429);
      }
      const polling = s.io(proxy, { token, transports: ["polling"] });
      await (await polling.connected()).join("room:a");
      assert.equal(await one.refusals("proxy_header"), 0);
    });
  }

  scenario("roomcast health asks admin_listen, and check warns where there is none", async (s) => {
    const one = await behind(s);
    assert.equal((await roomcast(["health", "--config", one.file])).code, 0);
    const { output } = await roomcast(["check"], { ROOMCAST_HTTP__PROXY_PROTOCOL: "true", JWT_SECRET: "x".repeat(40) });
    assert.match(output, /proxy_protocol.*admin_listen/s);
  });

  scenario("with [tls], the header comes before the handshake", async (s) => {
    const one = await behind(s, { tls: { cert_file: EC.cert_file, key_file: EC.key_file } });
    const secured = (first) =>
      within(new Promise((resolve, reject) => {
        const socket = net.connect(one.port, "127.0.0.1");
        if (first) socket.write(first);
        const secure = tls.connect({ socket, ca: EC.pem, host: "127.0.0.1" }, () => resolve(s.keep({ secure, close: () => secure.destroy() }).secure));
        secure.on("error", reject);
      }), "a handshake");
    for (const header of [v1Of("192.0.2.1"), v2Of("192.0.2.2"), LOCAL]) {
      const socket = await secured(header);
      socket.write(`GET /ws?token=${token} HTTP/1.1\r\nHost: x\r\n\r\n`);
      assert.match(`${await within(new Promise((resolve) => socket.once("data", resolve)), "an answer")}`, /^HTTP\/1.1 426/);
    }
    await assert.rejects(secured());
    await until(async () => (await one.refusals("proxy_header")) === 1, "the refusal counted");
  });
});
