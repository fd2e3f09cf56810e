// Hostile clients of a port that speaks TLS: no handshake, endless ones, records that break the rules after a good one.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import net from "node:net";
import { describe } from "node:test";
import tls from "node:tls";
import { makeCertificate } from "../harness/certificate.mjs";
import { until, within } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const EC = makeCertificate();
const ATTACKER = "127.0.0.2";
const handshakes = (node, result) => node.metric(`roomcast_tls_handshakes_total{result="${result}"}`);
const memory = (node) => node.metric("process_resident_memory_bytes");
const range = (count) => Array.from({ length: count }, (_, n) => n);

/** A TCP connection that sends these bytes; `closed` says whether the node has ended it. */
function connection(s, node, bytes) {
  const socket = net.connect({ port: node.port, host: "127.0.0.1", localAddress: ATTACKER });
  const own = s.keep({ socket, closed: false, got: Buffer.alloc(0), close: () => socket.destroy() });
  socket.on("data", (chunk) => (own.got = Buffer.concat([own.got, chunk])));
  socket.on("error", () => {}).on("close", () => (own.closed = true));
  if (bytes) socket.write(bytes);
  return own;
}

const closed = (connections, what) => until(() => connections.every((one) => one.closed), what, 20_000);

/** What a client of TLS says first. */
async function hello(options = {}) {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const client = tls.connect({ port: server.address().port, host: "127.0.0.1", ...options });
  client.on("error", () => {});
  const [peer] = await new Promise((resolve) => server.once("connection", (...all) => resolve(all)));
  const bytes = await new Promise((resolve) => peer.once("data", resolve));
  client.destroy();
  peer.destroy();
  server.close();
  return bytes;
}

/** A record of this type with this payload. */
const record = (type, payload, announced = payload.length) => {
  const head = Buffer.of(type, 3, 3, 0, 0);
  head.writeUInt16BE(announced, 3);
  return Buffer.concat([head, payload]);
};

describe("TLS", { concurrency: 1 }, () => {
  scenario("handshakes that never end make room for others, and end with http.head_timeout", async (s) => {
    const one = await s.node({ tls: EC, http: { head_timeout: "8s" }, limits: { unauthenticated: 100 } });
    const bystander = await witness(s, one);
    const first = await hello();
    const before = await memory(one);
    const slow = range(400).map((n) => connection(s, one, n % 2 ? first : first.subarray(0, 50)));
    const client = s.io(one, { token: tokenFor("8") }).connected();
    await bystander.during(client);
    await closed(slow, "the end of all");
    await until(async () => (await handshakes(one, "evicted")) >= 250, async () => `${await handshakes(one, "evicted")} evicted`);
    await until(async () => (await handshakes(one, "timeout")) >= 50, "those that stayed timed out");
    assert.ok((await memory(one)) - before < 40e6);
    bystander.unharmed();
  });

  scenario("a flood of whole handshakes is served, and the bystander misses nothing", async (s) => {
    const one = await s.node({ tls: EC });
    const bystander = await witness(s, one);
    let done = 0;
    const flood = async () => {
      for (let n = 0; n < 40; n += 1) {
        await new Promise((resolve) => {
          const socket = tls.connect({ port: one.port, host: "127.0.0.1", rejectUnauthorized: false }, () => (done++, socket.destroy(), resolve()));
          socket.on("error", resolve);
        });
      }
    };
    await Promise.all(range(5).map(flood));
    assert.equal(done, 200);
    bystander.unharmed();
  });

  scenario("garbage, oversized records, old versions and endless hellos are closed, counted, and hold nothing", async (s) => {
    const one = await s.node({ tls: EC, http: { head_timeout: "30s" } });
    const bystander = await witness(s, one);
    const first = await hello();
    const broken = Buffer.from(first);
    broken[5] = 0x7f;
    // A hello that announces 16 MB, in records of the longest kind.
    const endless = Buffer.concat([record(22, Buffer.concat([Buffer.of(1, 0xff, 0xff, 0xff), Buffer.alloc(16_380)])), ...range(5).map(() => record(22, Buffer.alloc(16_384)))]);
    const cases = [
      ["not_tls", crypto.randomBytes(100_000).fill(1, 0, 1)],
      ["not_tls", Buffer.of(0x80, 0x2e, 1, 0, 2)],
      ["plain_http", "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"],
      ["malformed", record(22, Buffer.alloc(0xffff), 0xffff)],
      ["malformed", broken],
      ["malformed", endless],
      ["not_tls", record(23, Buffer.alloc(100))],
      ["malformed", Buffer.concat([first.subarray(0, 5), crypto.randomBytes(first.length - 5)])],
      ["version", await hello({ minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" })],
    ];
    const before = new Map();
    for (const [result] of cases) before.set(result, await handshakes(one, result));
    const connections = cases.flatMap(([, bytes]) => range(10).map(() => connection(s, one, bytes)));
    await bystander.during(closed(connections, "the end of all"));
    for (const result of before.keys()) {
      const expected = 10 * cases.filter(([name]) => name === result).length;
      const more = async () => (await handshakes(one, result)) - before.get(result);
      await until(async () => (await more()) >= expected, async () => `${await more()} ${result} of ${expected}`);
      assert.equal(await more(), expected, result);
    }
    const plain = connections.filter(({ got }) => `${got}`.startsWith("HTTP/1.1 400"));
    assert.equal(plain.length, 10);
    bystander.unharmed();
  });

  scenario("after a good handshake: broken records, renegotiation, and a record that never ends", async (s) => {
    const one = await s.node({ tls: EC, socketio: { ping_interval: "1s", ping_timeout: "6s" } });
    const bystander = await witness(s, one);
    const open = (options) => {
      const wire = net.connect(one.port, "127.0.0.1");
      const own = s.keep({ wire, closed: false, close: () => wire.destroy() });
      wire.on("error", () => {}).on("close", () => (own.closed = true));
      const secured = new Promise((resolve, reject) => {
        own.secure = tls.connect({ socket: wire, ca: EC.pem, host: "127.0.0.1", ...options }, () => resolve(own)).on("error", reject);
      });
      return within(secured, "a handshake");
    };
    const upgraded = async (options) => {
      const own = await open(options);
      const key = crypto.randomBytes(16).toString("base64");
      own.secure.write(`GET /ws?token=${tokenFor("9")} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`);
      await within(new Promise((resolve) => own.secure.once("data", resolve)), "the WebSocket");
      own.secure.on("error", () => {}).resume();
      return own;
    };
    const broken = await Promise.all(range(5).map(() => upgraded()));
    for (const { wire } of broken) wire.write(record(23, crypto.randomBytes(500)));
    const begun = await Promise.all(range(20).map(() => upgraded()));
    for (const { wire } of begun) wire.write(record(23, crypto.randomBytes(16_000), 16_400));
    const old = await Promise.all(range(3).map(() => upgraded({ maxVersion: "TLSv1.2" })));
    for (const { secure } of old) secure.renegotiate({}, () => {});
    await bystander.during(closed([...broken, ...begun], "the end of all"));
    // The alert says no to one renegotiation; the connection is for its client to end.
    await until(async () => (await one.metric('roomcast_closes_total{reason="transport_close"}')) >= 5, "broken records end a connection");
    await until(async () => (await one.metric('roomcast_closes_total{reason="ping_timeout"}')) >= 20, "records that never end as well");
    bystander.unharmed();
  });
});
