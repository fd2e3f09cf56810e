// Backends and key servers that are not what they seem, tokens with invented keys, and what could give a key away.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import https from "node:https";
import os from "node:os";
import path from "node:path";
import { SECRET, startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { startJwks } from "../harness/jwks.mjs";
import { scenario } from "../harness/scenario.mjs";
import { keyPair, tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const on = [{ event: "send", forward: true }];
const listen = async (server, host = "127.0.0.1") => {
  await new Promise((resolve) => server.listen(0, host, resolve));
  return Object.assign(server, { port: server.address().port, stop: server.close });
};
const ended = (s, server) => (s.serve({ close: () => (server.closeAllConnections(), server.close()) }), server);
const jwksConfig = (url) => ({ auth: { secret: undefined, jwks_url: url, algorithms: ["ES256"] } });

scenario("redirects are not followed: those of a backend are its error, those of a key server bring no keys", async (s) => {
  const [keys, elsewhere] = [keyPair("ES256"), s.serve(await startBackend())];
  const jwks = s.serve(await startJwks());
  jwks.keys = [keys.jwk("evil")];
  for (const status of [301, 302, 303, 307, 308]) {
    const target = { backend: elsewhere.url, jwks: jwks.url };
    const server = ended(s, await listen(http.createServer((asked, response) => {
      asked.resume();
      response.writeHead(status, { location: asked.method === "POST" ? target.backend : target.jwks }).end();
    })));
    const node = await s.node({ on, backend: { url: `http://127.0.0.1:${server.port}/`, secret: SECRET, notify: [] } });
    const client = await s.io(node, { token: tokenFor("7"), transports: ["websocket"] }).connected();
    const [{ error }] = await client.ask("send", "secret");
    assert.deepEqual([error.code, /30\d/.test(error.message)], ["backend_error", true]);
    if (status !== 302) continue;
    const other = await s.node(jwksConfig(`http://127.0.0.1:${server.port}/jwks`));
    const refused = await s.io(other, { token: tokenFor("7", {}, { alg: "ES256", key: keys.privateKey, header: { kid: "evil" } }) }).refused();
    assert.equal(refused.data.code, "token_unknown_key");
    await until(() => /redirects are not followed/.test(other.output), () => `a redirect in ${other.output}`);
  }
  assert.deepEqual([elsewhere.calls.length, jwks.requests.length], [0, 0]);
});

/** A key and a certificate of `name` for so many days, from now or from a year ago. */
function certificate(directory, name, { expired = false } = {}) {
  const file = (kind) => path.join(directory, `${name}${expired ? "-expired" : ""}.${kind}`);
  const openssl = (...args) => execFileSync("openssl", args, { stdio: "pipe" });
  openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file("key"), "-out", file("pem"), "-days", "1",
    "-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`, "-addext", "basicConstraints=critical,CA:FALSE");
  if (expired) {
    openssl("req", "-new", "-key", file("key"), "-out", file("csr"), "-subj", `/CN=${name}`);
    fs.writeFileSync(file("ext"), `subjectAltName=DNS:${name}\nbasicConstraints=critical,CA:FALSE\n`);
    fs.writeFileSync(file("index"), "");
    fs.writeFileSync(file("conf"), `[ca]\ndefault_ca=own\n[own]\ndatabase=${file("index")}\nnew_certs_dir=${directory}\nrand_serial=yes\ndefault_md=sha256\npolicy=any\n[any]\ncommonName=supplied\n`);
    openssl("ca", "-batch", "-config", file("conf"), "-selfsign", "-keyfile", file("key"), "-in", file("csr"), "-out", file("pem"), "-notext", "-extfile", file("ext"),
      "-startdate", "200101000000Z", "-enddate", "210101000000Z");
  }
  return { key: fs.readFileSync(file("key")), cert: fs.readFileSync(file("pem")) };
}

scenario("TLS: a wrong host name, an expired certificate, an unknown one and TLS 1.1 are no backend and no key server", async (s) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-tls-"));
  s.serve({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
  const keys = keyPair("ES256");
  const [good, wrong, expired, unknown] = [certificate(directory, "localhost"), certificate(directory, "other.example"), certificate(directory, "localhost", { expired: true }), certificate(fs.mkdtempSync(path.join(directory, "x")), "localhost")];
  const roots = path.join(directory, "roots.pem");
  fs.writeFileSync(roots, Buffer.concat([good.cert, wrong.cert, expired.cert]));
  const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" };
  const servers = [
    ["TLS 1.3", good],
    ["TLS 1.2", { ...good, maxVersion: "TLSv1.2" }],
    ["a wrong name", wrong, /not valid for name/],
    ["expired", expired, /expired/],
    ["unknown", unknown, /UnknownIssuer|BadSignature/],
    ["TLS 1.1", { ...good, ...old }, /ProtocolVersion/],
  ];
  // Side by side: a client whose key is not known waits for three seconds.
  await Promise.all(servers.map(async ([name, options, why]) => {
    const seen = [];
    const server = ended(s, await listen(https.createServer(options, (asked, response) => {
      seen.push(asked.url);
      asked.resume();
      response.end(asked.url === "/jwks" ? JSON.stringify({ keys: [keys.jwk("a")] }) : '{"ack":["ok"]}');
    }), "localhost"));
    const url = `https://localhost:${server.port}`;
    const env = { SSL_CERT_FILE: roots };
    const node = await s.node({ on, backend: { url: `${url}/backend`, secret: SECRET, notify: [] }, ...jwksConfig(`${url}/jwks`) }, { env });
    const token = tokenFor("7", {}, { alg: "ES256", key: keys.privateKey, header: { kid: "a" } });
    if (!why) {
      const client = await s.io(node, { token, transports: ["websocket"] }).connected();
      assert.deepEqual(await client.ask("send", 1), ["ok"], name);
      return;
    }
    const refused = await s.io(node, { token }).refused();
    assert.equal(refused.data.code, "token_unknown_key", name);
    const plain = await s.node({ on, backend: { url: `${url}/backend`, secret: SECRET, notify: [] } }, { env });
    const client = await s.io(plain, { token: tokenFor("7"), transports: ["websocket"] }).connected();
    assert.equal((await client.ask("send", 1))[0].error.code, "backend_unavailable", name);
    assert.deepEqual(seen, [], `${name}: nothing was sent`);
    for (const one of [node, plain]) await until(() => why.test(one.output), () => `${name} in ${one.output}`);
  }));
});

scenario("tokens with ever new kids cause a fetch in three seconds at most, and who has a known key does not wait", async (s) => {
  const [keys, jwks] = [keyPair("ES256"), s.serve(await startJwks())];
  jwks.keys = [keys.jwk("known")];
  const begun = Date.now();
  const node = await s.node(jwksConfig(jwks.url));
  const token = (user, kid) => tokenFor(user, {}, { alg: "ES256", key: keys.privateKey, header: { kid } });
  let number = 0;
  const bystander = await witness(s, node, {
    token: token("witness", "known"),
    step: async () => {
      number += 1;
      const client = await s.io(node, { token: token(`newcomer-${number}`, "known"), transports: ["websocket"] }).connected();
      client.close();
    },
  });
  const before = jwks.requests.length;
  const strangers = Array.from({ length: 150 }, (_, n) => s.ws(node, { token: token("evil", `kid-${n}`) }));
  await bystander.during(Promise.all(strangers.map(async (stranger) => assert.equal((await stranger.ended()).code, 4401))));
  const allowed = 2 + (Date.now() - begun) / 3000;
  assert.ok(jwks.requests.length >= before + 1 && jwks.requests.length <= allowed, `${jwks.requests.length} fetches, ${allowed} allowed`);
  assert.ok(jwks.requests.every(({ url }) => url === "/jwks.json"));
  bystander.unharmed();
});

scenario("publish keys: what is like a key is refused like what is not, and a node dumps no core", async (s) => {
  const node = await s.node();
  const answers = new Set();
  const wrong = ["", "x", KEY.slice(0, -1), `${KEY}x`, `x${KEY.slice(1)}`, KEY.toUpperCase(), "y".repeat(KEY.length), "z".repeat(10_000)];
  for (const key of wrong) {
    const { status, text } = await request(`${node.url}/publish`, { method: "POST", headers: { authorization: `Bearer ${key}` }, body: "{}" });
    answers.add(`${status} ${text}`);
  }
  assert.equal(answers.size, 1);
  assert.match([...answers][0], /^401 /);
  const limits = fs.readFileSync(`/proc/${node.process.pid}/limits`, "utf8");
  assert.match(limits, /^Max core file size\s+0\s/m);
  await until(async () => (await node.metric('roomcast_refusals_total{reason="publish_key"}')) === wrong.length, "counted");
});
