// The connections over which webhooks are posted: kept alive, replaced once when one has died, and through a proxy.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import net from "node:net";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const listen = (server, host = "127.0.0.1") => new Promise((resolve) => server.listen(0, host, () => resolve(server.address().port)));
const forward = { on: [{ event: "send", forward: true }] };
const backend = (url) => ({ backend: { url, notify: [], secret: "a secret of at least 32 bytes, for tests" }, ...forward });

/** A backend that answers the first request of a connection; `later(socket)` decides on further ones. */
async function moody({ first = (socket, answer) => answer(), later }) {
  const seen = [];
  const server = net.createServer((socket) => {
    let requests = 0;
    let text = "";
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      text += chunk;
      const [head, body] = text.split("\r\n\r\n");
      if (body === undefined || Buffer.byteLength(body) < Number(/content-length: (\d+)/i.exec(head)[1])) return;
      text = "";
      requests += 1;
      seen.push({ ...JSON.parse(body), signed: /x-roomcast-signature: t=/i.test(head), connection: socket.remotePort });
      const answer = () => socket.write("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{\"ack\":[\"ok\"]}".replace("13", "14"));
      (requests === 1 ? first : later)(socket, answer);
    });
  });
  const port = await listen(server);
  return { seen, url: `http://127.0.0.1:${port}/roomcast`, close: () => server.close() };
}

suite("connections of webhooks", () => {
  const deaths = { "is reset": (socket) => socket.resetAndDestroy(), "is ended": (socket) => socket.end() };
  for (const [name, later] of Object.entries(deaths)) {
    scenario(`a keep-alive connection that ${name} before the answer: the call is repeated once on a new one, with the same id`, async ({ node, io, serve }) => {
      const moods = serve(await moody({ later }));
      const client = await io(await node(backend(moods.url)), { token: tokenFor("7") }).connected();
      for (let number = 0; number < 6; number += 1) assert.deepEqual(await client.ask("send", number), ["ok"]);
      const repeated = moods.seen.filter(({ id }, index) => moods.seen.findIndex((other) => other.id === id) !== index);
      assert.ok(repeated.length >= 2, JSON.stringify(moods.seen));
      assert.equal(new Set(moods.seen.map(({ id }) => id)).size, 6);
      assert.ok(moods.seen.every(({ signed }) => signed));
      for (const { id } of repeated) {
        const [one, other] = moods.seen.filter((request) => request.id === id);
        assert.notEqual(one.connection, other.connection);
        assert.deepEqual(one.args, other.args);
      }
    });
  }

  scenario("a call is not repeated if a new connection breaks, since the backend may have handled it", async ({ node, io, serve }) => {
    const moods = serve(await moody({ first: (socket) => socket.destroy() }));
    const client = await io(await node(backend(moods.url)), { token: tokenFor("7") }).connected();
    const [{ error }] = await client.ask("send", 1);
    assert.equal(error.code, "backend_unavailable");
    assert.equal(moods.seen.length, 1);
  });

  scenario("a call is not repeated after an incomplete answer", async ({ node, io, serve }) => {
    const later = (socket) => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{");
    const moods = serve(await moody({ later }));
    const client = await io(await node(backend(moods.url)), { token: tokenFor("7") }).connected();
    assert.deepEqual(await client.ask("send", 1), ["ok"]);
    const [{ error }] = await client.ask("send", 2);
    assert.equal(error.code, "backend_unavailable");
    assert.equal(moods.seen.length, 2);
  });

  scenario("HTTPS_PROXY and its login are used for https:// URLs, but not for NO_PROXY and http:// URLs", async ({ node, io, serve }) => {
    const directory = fs.mkdtempSync("/tmp/roomcast-proxy-");
    serve({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
    const [key, certificate] = [`${directory}/key.pem`, `${directory}/cert.pem`];
    execFileSync("openssl", [
      "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "1",
      "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE",
    ], { stdio: "ignore" });
    const answer = (_, response) => response.end('{"ack":["ok"]}');
    const secure = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(certificate) }, answer);
    const plain = http.createServer(answer);
    const asked = [];
    const proxy = http.createServer();
    proxy.on("connect", (request, client) => {
      asked.push({ target: request.url, login: request.headers["proxy-authorization"] });
      const upstream = net.connect(Number(request.url.split(":")[1]), "127.0.0.1", () => {
        client.write("HTTP/1.1 200 OK\r\n\r\n");
        upstream.pipe(client).pipe(upstream);
      });
      for (const socket of [client, upstream]) socket.on("error", () => {});
    });
    const [securePort, plainPort, proxyPort] = [await listen(secure, "localhost"), await listen(plain), await listen(proxy)];
    for (const server of [secure, plain, proxy]) serve({ close: () => (server.closeAllConnections(), server.close()) });
    const env = { HTTPS_PROXY: `http://user:pass@127.0.0.1:${proxyPort}`, SSL_CERT_FILE: certificate };
    const ask = async (url, more) => {
      const client = await io(await node(backend(url), { env: { ...env, ...more } }), { token: tokenFor("7") }).connected();
      return client.ask("send", 1);
    };
    const url = `https://localhost:${securePort}/roomcast`;
    assert.deepEqual(await ask(url), ["ok"]);
    assert.deepEqual(asked, [{ target: `localhost:${securePort}`, login: `Basic ${Buffer.from("user:pass").toString("base64")}` }]);
    assert.deepEqual(await ask(url, { NO_PROXY: "localhost" }), ["ok"]);
    assert.deepEqual(await ask(`http://127.0.0.1:${plainPort}/roomcast`, { HTTP_PROXY: env.HTTPS_PROXY }), ["ok"]);
    assert.equal(asked.length, 1);
    // The key set goes the same way.
    const keyed = await node({ auth: { secret: undefined, jwks_url: `https://localhost:${securePort}/jwks`, algorithms: ["RS256"] } }, { env });
    await until(() => asked.length > 1, () => `the proxy being asked for the key set; the node said ${keyed.output}`);
  });
});
