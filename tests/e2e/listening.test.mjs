// Where a node listens: Unix sockets for operators, IPv4 and IPv6 together, and the command line by each of these and by TLS.
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import os from "node:os";
import path from "node:path";
import { makeCertificate } from "../harness/certificate.mjs";
import { KEY } from "../harness/config.mjs";
import { until, within } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { command } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const addresses = Object.values(os.networkInterfaces()).flat();
const noIpv6 = !addresses.some(({ address }) => address === "::1") && "there is no IPv6";
const EC = makeCertificate();
const token = tokenFor("7");

/** A path for a socket, which ends with the test. */
function socketPath(s) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-unix-"));
  s.serve({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
  return path.join(directory, "admin.sock");
}

const bySocket = (socketPath, url) =>
  within(new Promise((resolve, reject) => {
    http.get({ socketPath, path: url, headers: { host: "anything" } }, (answer) => {
      let text = "";
      answer.on("data", (chunk) => (text += chunk)).on("end", () => resolve({ status: answer.statusCode, text }));
    }).on("error", reject);
  }), `an answer of ${url}`);

const published = (event, ...more) => ["publish", "--room", "user:7", "--event", event, "--data", "1", ...more];

suite("listening", () => {
  scenario("admin_listen is a Unix socket: only who may open its file comes in, and commands find it", async (s) => {
    const socket = socketPath(s);
    const one = await s.node({ admin_listen: `unix:${socket}`, admin_socket_mode: "0660", http: { allowed_hosts: ["127.0.0.1"] } });
    const client = await s.ws(one, { token }).welcomed();
    assert.equal(fs.statSync(socket).mode & 0o777, 0o660);
    assert.deepEqual([(await one.get("/metrics")).status, (await command(one, "/publish", {})).status], [404, 404]);
    assert.match((await bySocket(socket, "/metrics")).text, /roomcast_connections\{protocol="ws",transport="websocket"\} 1/);
    const config = path.join(one.directory, "roomcast.toml");
    for (const [event, ...how] of [["config", "--config", config], ["url", "--url", `unix:${socket}`, "--key", KEY]]) {
      const { code, output } = await roomcast(published(event, ...how));
      assert.equal(code, 0, output);
      await client.event(event);
    }
    assert.equal((await roomcast(["nodes", "--config", config])).code, 0);
    assert.equal((await roomcast(["health", "--config", config])).code, 0, "at listen, as clients see it");
    const wrong = await roomcast(published("x", "--url", "unix:relative.sock", "--key", KEY));
    assert.deepEqual([wrong.code, /must be like http:\/\/127.0.0.1:8080 or unix:\/run\/roomcast.sock/.test(wrong.output)], [2, true], wrong.output);
    await one.stop();
    assert.ok(!fs.existsSync(socket), "it leaves no file");
  });

  scenario("a socket that a killed node has left is replaced; one that is in use and other files are not", async (s) => {
    const socket = socketPath(s);
    const settings = { admin_listen: `unix:${socket}` };
    const killed = await s.node(settings);
    await killed.stop("SIGKILL");
    assert.ok(fs.existsSync(socket));
    const one = await s.node(settings);
    assert.equal(fs.statSync(socket).mode & 0o777, 0o600, "the default");
    const config = path.join(one.directory, "roomcast.toml");
    const start = async () => roomcast(["serve", "--config", config, "--listen", `127.0.0.1:${await freePort()}`]);
    const second = await start();
    assert.deepEqual([second.code, /cannot listen on unix:.*in use/.test(second.output)], [1, true], second.output);
    assert.equal((await bySocket(socket, "/health")).status, 200);
    await one.stop("SIGTERM");
    const file = path.join(path.dirname(socket), "kept.toml");
    fs.writeFileSync(file, `admin_listen = "unix:${socket}"\n[auth]\nanonymous = true\n`);
    fs.writeFileSync(socket, "somebody's");
    const third = await roomcast(["serve", "--config", file, "--listen", `127.0.0.1:${await freePort()}`]);
    assert.deepEqual([third.code, /a file is there that is not a socket/.test(third.output)], [1, true], third.output);
    assert.equal(fs.readFileSync(socket, "utf8"), "somebody's");
  });

  scenario("[::] takes IPv4 too, and counts its clients by their IPv4 address", async (s) => {
    const port = await freePort();
    const one = await s.node({ listen: `[::]:${port}`, limits: { connections_per_ip: 2 } }, { port });
    const ipv6 = { ...one, url: `http://[::1]:${port}`, socketUrl: `ws://[::1]:${port}` };
    const clients = await Promise.all([one, one, ipv6].map((node) => s.ws(node, { token }).welcomed()));
    assert.equal(clients.length, 3, "two of one address, one of the other");
    await until(async () => (await command(one, "/publish", { room: "user:7", event: "x", data: 1 })).status === 200, "a publish");
    assert.deepEqual(await s.ws(one, { token }).ended(), { status: 429 });
    const sessions = await request(`${one.url}/sessions`, { headers: { authorization: `Bearer ${KEY}` } });
    assert.deepEqual(sessions.json().sessions.map(({ address }) => address).sort(), ["127.0.0.1", "127.0.0.1", "::"], "an IPv6 client by its /64 network");
    assert.equal((await roomcast(["health", "--config", path.join(one.directory, "roomcast.toml")])).code, 0);
  }, { skip: noIpv6 });

  scenario("commands reach a node with [tls]: its own by any certificate, another by one that they can check", async (s) => {
    const port = await freePort();
    const one = await s.node({ listen: `0.0.0.0:${port}`, tls: EC }, { port });
    const client = await s.ws(one, { token }).welcomed();
    const config = path.join(one.directory, "roomcast.toml");
    for (const [event, ...how] of [["config", "--config", config], ["url", "--url", `https://localhost:${port}`, "--key", KEY]]) {
      const { code, output } = await roomcast(published(event, ...how));
      assert.equal(code, 0, output);
      await client.event(event);
    }
    assert.equal((await roomcast(["health", "--config", config])).code, 0);
    const outside = addresses.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
    if (outside) {
      const far = ["--url", `https://${outside}:${port}`];
      const refused = await roomcast(published("x", ...far, "--key", KEY), { SSL_CERT_FILE: EC.cert_file });
      assert.deepEqual([refused.code, /certificate/.test(refused.output)], [1, true], refused.output);
      assert.equal((await roomcast(["health", ...far])).code, 0, "it sends no key");
    }
  });
});
