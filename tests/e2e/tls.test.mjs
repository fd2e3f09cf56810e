// [tls]: every kind of client by TLS, and how the node holds its certificate. The suites of ../proxies/run.sh run by TLS too.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import https from "node:https";
import tls from "node:tls";
import { promisify } from "node:util";
import { makeCertificate } from "../harness/certificate.mjs";
import { configure, toml } from "../harness/config.mjs";
import { until, within } from "../harness/deadline.mjs";
import { post, trust } from "../harness/http.mjs";
import { roomcast } from "../harness/node.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { reconnected } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const EC = makeCertificate();
const handshakes = (node, result) => node.metric(`roomcast_tls_handshakes_total{result="${result}"}`);

/** A TLS connection that is open. */
const connected = (node, options) =>
  within(new Promise((resolve, reject) => {
    const socket = tls.connect({ port: node.port, host: "127.0.0.1", ca: EC.pem, ...options }, () => resolve(socket));
    socket.on("error", reject);
  }), "a TLS handshake");

suite("TLS", () => {
  scenario("stock clients of each kind are served, with certificates of both kinds of keys", async ({ node, io, ws, sse }) => {
    for (const certificate of [EC, makeCertificate({ key: "rsa" })]) {
      const one = await node({ tls: certificate });
      assert.ok(one.url.startsWith("https:"));
      const transports = [["websocket"], ["polling"], ["polling", "websocket"]];
      const clients = await Promise.all(transports.map((transports) => io(one, { token, transports, tryAllTransports: false }).connected()));
      await until(() => clients[2].transport() === "websocket", "the upgrade");
      for (const client of clients) assert.deepEqual(await client.ask("echo", "a", Buffer.of(1, 2, 3)), ["a", Buffer.of(1, 2, 3)]);
      const plain = await ws(one, { token }).welcomed();
      const stream = await sse(one, { token, rooms: ["room:a"] }).answered();
      const text = "ü".repeat(100_000);
      await published(one, { room: "user:7", event: "large", data: text });
      for (const client of clients) assert.deepEqual(await client.event("large"), [text]);
      assert.equal((await plain.event("large")).data, text);
      assert.equal(JSON.parse((await stream.event("large")).data), text);
      assert.ok((await handshakes(one, "ok")) >= 6);
    }
  });

  scenario("a body of several megabytes is taken, and a connection carries many requests", async ({ node, io, keep }) => {
    const one = await node({ tls: EC, publish: { max_event: "4MB" }, limits: { outbox_bytes: "8MB" } });
    const client = await io(one, { token, transports: ["websocket"] }).connected();
    const text = crypto.randomBytes(1_500_000).toString("hex");
    await published(one, { room: "user:7", event: "huge", data: text });
    assert.equal((await client.event("huge"))[0], text);
    // Refused before it is read, and still answered.
    for (let n = 0; n < 5; n += 1) assert.equal((await command(one, "/publish", "x".repeat(9_000_000))).status, 413);
    const agent = keep({ agent: new https.Agent({ keepAlive: true, maxSockets: 1, ca: EC.pem }), close() { this.agent.destroy(); } }).agent;
    const before = await handshakes(one, "ok");
    for (let n = 0; n < 20; n += 1) {
      const status = await new Promise((resolve, reject) =>
        https.get(`${one.url}/health`, { agent }, (answer) => answer.resume().on("end", () => resolve(answer.statusCode))).on("error", reject));
      assert.equal(status, 200);
    }
    assert.equal((await handshakes(one, "ok")) - before, 2, "one for the 20, one for /metrics");
  });

  scenario("a session resumes on another node, and an upgrade that comes to another node moves there", async ({ redis, node, proxy, io }) => {
    const store = await redis();
    const [first, second] = await Promise.all([1, 2].map(() => node({ tls: EC, redis: { url: store.url } })));
    const balancer = await proxy(first);
    const client = await io(balancer, { token, transports: ["websocket"] }).connected();
    await published(first, { room: "user:7", event: "before", data: 1 });
    await client.event("before");
    balancer.target = second;
    balancer.cut();
    await until(async () => (await first.metric('roomcast_closes_total{reason="transport_close"}')) >= 1, "the connection gone");
    await published(first, { room: "user:7", event: "missed", data: 1 });
    assert.equal(await reconnected(client), true);
    await client.event("missed");
  });

  scenario("a client that reads nothing is closed as a slow consumer", async ({ node, raw }) => {
    const one = await node({ tls: EC, limits: { outbox_bytes: "100KB" } });
    const client = raw(one);
    await client.upgrade(`/ws?token=${token}`);
    client.socket.pause();
    const data = "x".repeat(90_000);
    await until(async () => {
      await published(one, { room: "user:7", event: "n", data });
      return (await one.metric('roomcast_closes_total{reason="slow_consumer"}')) === 1;
    }, "the slow consumer closed", 60_000);
  });

  scenario("SIGTERM drains: clients are notified, TLS ends in order, and the exit code is 0", async ({ node, io, ws }) => {
    const one = await node({ tls: EC });
    const client = await io(one, { token, transports: ["websocket"] }).connected();
    const plain = await ws(one, { token }).welcomed();
    // Node reports an end without close_notify as an error only to those who ask; OpenSSL keeps no session of it.
    const idle = await connected(one);
    const ended = new Promise((resolve) => idle.once("end", resolve));
    idle.resume();
    one.stopping = true;
    one.signal("SIGTERM");
    assert.match(await client.disconnected(), /^transport (close|error)$/);
    assert.equal((await plain.ended()).code, 1001);
    assert.equal((await one.exited).code, 0);
    await within(ended, "the end of an idle connection");
    client.close();
  });

  scenario("TLS 1.2 and 1.3 are spoken, older versions and other protocols are refused and counted", async ({ node }) => {
    const one = await node({ tls: EC });
    for (const version of ["TLSv1.2", "TLSv1.3"]) {
      const socket = await connected(one, { minVersion: version, maxVersion: version, ALPNProtocols: ["h2", "http/1.1"] });
      assert.deepEqual([socket.getProtocol(), socket.alpnProtocol], [version, "http/1.1"]);
      socket.destroy();
    }
    await assert.rejects(connected(one, { ALPNProtocols: ["h2"] }));
    await assert.rejects(connected(one, { minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "ALL:@SECLEVEL=0" }));
    await assert.rejects(connected(one, { ca: undefined }), /self-signed/);
    const strict = ["s_client", "-connect", `127.0.0.1:${one.port}`, "-verify_return_error", "-CAfile", makeCertificate().cert_file];
    await promisify(execFile)("openssl", strict).catch(() => {});
    for (const result of ["alert", "alpn", "version"]) await one.metricIs(`roomcast_tls_handshakes_total{result="${result}"}`, 1);
    await one.says(/the client refused with the alert UnknownCA; .* look at the chain in `tls.cert_file`/);
    // Any name is served: there is one certificate, which the client judges.
    (await connected(one, { servername: "other.example.com", checkServerIdentity: () => undefined })).destroy();
    assert.ok((await one.metric('roomcast_refusals_total{reason="tls"}')) >= 3);
    const expiry = await one.metric("roomcast_tls_certificate_expiry_timestamp_seconds");
    assert.equal(expiry * 1000, Date.parse(new crypto.X509Certificate(EC.pem).validTo));
  });

  scenario("a client comes back with its ticket, without a new exchange of certificates", async ({ node }) => {
    const one = await node({ tls: EC });
    const socket = await connected(one);
    const session = new Promise((resolve) => socket.once("session", resolve));
    socket.resume().write("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    const again = await connected(one, { session: await within(session, "a ticket") });
    assert.ok(again.isSessionReused());
    again.destroy();
    socket.destroy();
  });

  scenario("a renewed certificate is served after a reload, and a pair that does not fit changes nothing", async ({ node, io }) => {
    const files = makeCertificate();
    const [renewed, late] = [makeCertificate(), makeCertificate({ days: -1 })];
    const one = await node({ tls: files });
    const client = await io(one, { token, transports: ["websocket"] }).connected();
    const served = async () => {
      const socket = await connected(one, { ca: undefined, rejectUnauthorized: false });
      const { fingerprint256 } = socket.getPeerX509Certificate();
      socket.destroy();
      return fingerprint256;
    };
    const place = (certificate, key) => {
      fs.copyFileSync(certificate.cert_file, files.cert_file);
      fs.copyFileSync(key.key_file, files.key_file);
    };
    const before = await served();
    for (const [pair, why] of [[[renewed, late], /is not the key of the first certificate/], [[late, late], /has expired/]]) {
      place(...pair);
      const answer = await command(one, "/reload", "");
      assert.deepEqual([answer.status, why.test(answer.text)], [422, true], answer.text);
      assert.equal(await served(), before);
    }
    place(renewed, renewed);
    assert.deepEqual((await command(one, "/reload", "")).json().changed, [{ key: "tls.cert_file" }]);
    assert.equal(await served(), new crypto.X509Certificate(renewed.pem).fingerprint256);
    trust(one.url, renewed.pem);
    await published(one, { room: "user:7", event: "after", data: 1 });
    await client.event("after");
    assert.deepEqual(client.disconnects, [], "open connections go on");
    const expiry = await one.metric("roomcast_tls_certificate_expiry_timestamp_seconds");
    assert.equal(expiry * 1000, Date.parse(new crypto.X509Certificate(renewed.pem).validTo));
    assert.deepEqual((await command(one, "/reload", "")).json().changed, []);
  });

  scenario("HTTP without TLS is answered 400 with what to do; TLS to a plain port is refused with a line", async ({ node }) => {
    const one = await node({ tls: EC });
    const answer = await post(`http://127.0.0.1:${one.port}/publish`, { room: "a", event: "b", data: "x".repeat(50_000) });
    assert.deepEqual([answer.status, answer.json().error.code], [400, "tls_required"]);
    await one.metricIs('roomcast_tls_handshakes_total{result="plain_http"}', 1);
    await one.says(/HTTP without TLS on a port with \[tls\]: use https:\/\/ or wss:\/\//);
    const plain = await node({ tls: null });
    await assert.rejects(connected(plain));
    await plain.says("for TLS set [tls]");
  });

  scenario("check and serve name what is wrong with the files", async () => {
    const [other, expired] = [makeCertificate(), makeCertificate({ days: -1 })];
    const broken = makeCertificate();
    fs.writeFileSync(broken.cert_file, "no PEM");
    const file = `${broken.cert_file}.toml`;
    const check = (files) => {
      fs.writeFileSync(file, toml({ ...configure(), tls: files }));
      return roomcast(["check", "--config", file]);
    };
    const good = await check({ cert_file: EC.cert_file, key_file: EC.key_file });
    assert.deepEqual([good.code, /tls: .*, valid until 20/.test(good.output)], [0, true], good.output);
    for (const [files, why] of [
      [{ cert_file: EC.cert_file }, /\[tls\] cert_file: give `cert_file` and `key_file`, or neither/],
      [{ cert_file: "/nowhere.pem", key_file: EC.key_file }, /\[tls\] cert_file: cannot read \/nowhere.pem/],
      [{ cert_file: EC.cert_file, key_file: other.key_file }, /\[tls\] key_file: .* is not the key of the first certificate/],
      [{ cert_file: broken.cert_file, key_file: EC.key_file }, /\[tls\] cert_file: .* has no certificate/],
      [{ cert_file: EC.cert_file, key_file: EC.cert_file }, /\[tls\] key_file: .* has no private key/],
    ]) {
      const { code, output } = await check(files);
      assert.equal(code, 2, output);
      assert.match(output, why);
    }
    // Clients refuse it, so a node that starts with it only warns.
    const late = await check({ cert_file: expired.cert_file, key_file: expired.key_file });
    assert.deepEqual([late.code, /tls\.cert_file: .* has expired at 20\S+; renew it/.test(late.output)], [2, true], late.output);
  });
});
