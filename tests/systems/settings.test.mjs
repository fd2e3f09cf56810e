// The settings of the five systems' deployments, and that nothing specific to them is in src/.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { environment, EXAMPLES, fileOf, SECRETS, SYSTEMS } from "./stage.mjs";

const SOURCE = path.resolve(EXAMPLES, "../src");

/** Runs `roomcast check` and a node with BranchBase's file and these settings; resolves with the status of Redis in /health. */
async function serves(s, env) {
  const checked = await roomcast(["check", "--config", fileOf("branchbase")], { JWT_SECRET: SECRETS.jwt, ...env });
  assert.equal(checked.code, 0, checked.output);
  assert.match(checked.output, /redis: ready at/);
  const port = await freePort();
  const node = await s.node({}, { file: fileOf("branchbase"), port, env: { ROOMCAST_LISTEN: `127.0.0.1:${port}`, JWT_SECRET: SECRETS.jwt, ...env } });
  assert.equal((await node.get("/socket/ping")).json().status, "live");
  return (await node.get("/health")).json().services.redis.status;
}

/** A CA and a certificate of 127.0.0.1, as files. */
function certificates(keep) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-tls-"));
  keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
  const at = (name) => path.join(directory, name);
  const openssl = (...args) => execFileSync("openssl", args, { cwd: directory, stdio: "pipe" });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...ec, "-days", "2", "-subj", "/CN=test CA", "-keyout", "ca.key", "-out", "ca.pem");
  openssl("req", ...ec, "-subj", "/CN=127.0.0.1", "-keyout", "redis.key", "-out", "redis.csr");
  fs.writeFileSync(at("extensions"), "subjectAltName = IP:127.0.0.1\nbasicConstraints = CA:FALSE\n");
  openssl("x509", "-req", "-in", "redis.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions", "-out", "redis.pem");
  return { ca: at("ca.pem"), certificate: at("redis.pem"), key: at("redis.key") };
}

suite("Settings", () => {
  scenario("BranchBase: REDIS_URL is used", async (s) => {
    const redis = await s.redis();
    assert.equal(await serves(s, { REDIS_URL: redis.url }), "ready");
  });

  scenario("BranchBase: REDIS_HOST, REDIS_PORT, REDIS_USERNAME and REDIS_PASSWORD are used", async (s) => {
    const redis = await s.redis();
    const password = "p@ss:w/ör#d%41 ";
    await redis.cli("ACL", "SETUSER", "app", "on", `>${password}`, "~*", "&*", "+@all");
    await redis.cli("CONFIG", "SET", "requirepass", "nobody knows");
    const host = { REDIS_HOST: "127.0.0.1", REDIS_PORT: `${redis.port}` };
    assert.equal(await serves(s, { ...host, REDIS_USERNAME: "app", REDIS_PASSWORD: password }), "ready");
    assert.equal(await serves(s, { ...host, REDIS_PASSWORD: "nobody knows" }), "ready");
    for (const wrong of [{}, { REDIS_PASSWORD: "wrong" }, { REDIS_USERNAME: "app", REDIS_PASSWORD: "nobody knows" }]) {
      const refused = await roomcast(["check", "--config", fileOf("branchbase")], { JWT_SECRET: SECRETS.jwt, ...host, ...wrong });
      assert.equal(refused.code, 2, JSON.stringify(wrong));
      assert.ok(!refused.output.includes("nobody knows"), "no password is shown");
    }
  });

  scenario("BranchBase: REDIS_TLS connects by TLS and checks the certificate", async (s) => {
    const { ca, certificate, key } = certificates(s.keep);
    const tlsPort = await freePort();
    await s.redis({ args: ["--tls-port", `${tlsPort}`, "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no"] });
    const settings = { REDIS_HOST: "127.0.0.1", REDIS_PORT: `${tlsPort}`, REDIS_TLS: "true" };
    assert.equal(await serves(s, { ...settings, SSL_CERT_FILE: ca }), "ready");
    const refused = await roomcast(["check", "--config", fileOf("branchbase")], { JWT_SECRET: SECRETS.jwt, ...settings });
    assert.equal(refused.code, 2, "certificates are checked");
  });

  const examples = fs.readdirSync(EXAMPLES).filter((name) => fs.existsSync(fileOf(name)));
  for (const system of examples) {
    scenario(`examples/${system}/roomcast.toml passes \`roomcast check\` with its environment, and contains no secret`, async (s) => {
      const redis = await s.redis();
      const env = environment({ redisUrl: redis.url, backendUrl: system === "branchbase" ? undefined : "http://127.0.0.1:3000/roomcast" });
      const checked = await roomcast(["check", "--config", fileOf(system)], env);
      assert.equal(checked.code, 0, checked.output);
      assert.doesNotMatch(checked.output, /warning/i);
      assert.doesNotMatch(fs.readFileSync(fileOf(system), "utf8"), /^\s*(secret|keys|url = "redis)/m);
      const without = await roomcast(["check", "--config", fileOf(system)], { ...env, JWT_SECRET: "" });
      assert.equal(without.code, 2, "JWT_SECRET is needed");
    });
  }

  scenario("no event, room or payload of the five systems is named in src/", async () => {
    const { words, rooms } = namesOfSystems();
    assert.ok(words.size > 40 && rooms.size >= 5, `${words.size} words, ${rooms.size} rooms`);
    const found = [];
    for (const file of await sources()) {
      // The demo is a chat too, and its rooms may have the same names.
      const prefixes = file.startsWith(path.join(SOURCE, "demo")) ? [] : rooms;
      for (const [, text] of code(file).matchAll(/"((?:[^"\\\n]|\\.)*)"/g)) {
        if (words.has(text)) found.push(`${path.relative(SOURCE, file)}: the word "${text}"`);
        for (const prefix of prefixes) if (text.startsWith(prefix)) found.push(`${path.relative(SOURCE, file)}: the room "${text}"`);
      }
    }
    assert.deepEqual(found, []);
  });
});

/** Words of the protocols and of the configuration, which may be in src/. */
const COMMON = new Set(["connection", "disconnect", "connected", "error", "message", "user", "id", "name", "typing", "success", "ok", "status"]);

/** The names of the systems' events and payload members, from their files and backends, and the prefixes of their rooms. */
function namesOfSystems() {
  const words = new Set();
  const rooms = new Set();
  for (const system of SYSTEMS) {
    const toml = fs.readFileSync(fileOf(system), "utf8");
    const backend = fs.readFileSync(path.join(import.meta.dirname, system, "backend.mjs"), "utf8");
    for (const [, event] of toml.matchAll(/\bevent = "([^"{]+)"/g)) words.add(event);
    for (const [, member] of toml.matchAll(/[{,] (\w+) = "?[{\w]/g)) if (!["event", "room", "args", "volatile", "include_caller"].includes(member)) words.add(member);
    for (const [, event] of backend.matchAll(/(?:event: |emit\(|created: |updated: |deleted: |\], )"([a-z_]+[:_][a-z_]+)"/g)) words.add(event);
    for (const [, prefix] of toml.matchAll(/^(?:match = )"([a-z]+:)/gm)) if (prefix !== "user:") rooms.add(prefix);
  }
  for (const prefix of ["project:", "channel:"]) rooms.add(prefix);
  for (const word of COMMON) words.delete(word);
  return { words, rooms };
}

async function sources() {
  const all = await fs.promises.readdir(SOURCE, { recursive: true, withFileTypes: true });
  const files = all.filter((entry) => entry.isFile() && entry.name.endsWith(".rs")).map((entry) => path.join(entry.parentPath ?? entry.path, entry.name));
  return files.filter((file) => !/\/tests(\/|\.rs$)/.test(file));
}

/** A file's code without comments and without its tests. */
function code(file) {
  const [text] = fs.readFileSync(file, "utf8").split("#[cfg(test)]");
  return text.replaceAll(/\/\/.*$/gm, "");
}
