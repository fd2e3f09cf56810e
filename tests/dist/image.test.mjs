// The container image, built from target/dist without a registry and run by podman: what is in it, and what it may do.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import https from "node:https";
import path from "node:path";
import { configure, toml } from "../harness/config.mjs";
import { connectWs } from "../harness/clients.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { tokenFor } from "../harness/token.mjs";
import { ROOT, distTest, expectedVersion, output, run, serve } from "./dist.mjs";

const IMAGE = "localhost/roomcast:test";
const openFiles = execFileSync("sh", ["-c", "ulimit -Hn"], { encoding: "utf8" }).trim();

// Images and containers go to the test's directory, and nothing is asked of systemd, which a machine in a container lacks.
function containers(directory) {
  const [storage, settings] = ["storage.conf", "containers.conf"].map((name) => path.join(directory, name));
  fs.writeFileSync(storage, `[storage]\ndriver = "vfs"\ngraphroot = "${directory}/images"\nrunroot = "${directory}/run"\n`);
  const engine = 'cgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "runc"\n';
  const limits = `default_ulimits = ["nofile=${openFiles}:${openFiles}", "nproc=4096:4096"]\n`;
  fs.writeFileSync(settings, `[containers]\n${limits}[engine]\n${engine}tmp_dir = "${directory}/tmp"\n`);
  return { ...process.env, CONTAINERS_STORAGE_CONF: storage, CONTAINERS_CONF: settings, IMAGE_BUILDER: "podman" };
}

distTest("the image: its files, its user, its health check, a read-only root, and SIGTERM", async ({ directory, keep }) => {
  const env = containers(directory);
  const podman = (...args) => output("podman", args, { env });
  await output(path.join(ROOT, "packaging/image.sh"), [IMAGE], { env });
  keep({ close: () => run("podman", ["rm", "--all", "--force"], { env }) });

  const [image] = JSON.parse(await podman("inspect", IMAGE));
  assert.equal(image.User, "65532:65532");
  assert.deepEqual(image.Healthcheck.Test, ["CMD", "/roomcast", "health"]);

  // Before a start: then the engine adds files of its own.
  await podman("create", "--name=files", IMAGE);
  const listed = await output("sh", ["-c", "podman export files | tar -t"], { env });
  const files = listed.split("\n").filter((name) => name && !name.endsWith("/"));
  assert.deepEqual(files.sort(), ["etc/ssl/certs/ca-certificates.crt", "roomcast"]);

  const [port, configuration] = [await freePort(), path.join(directory, "roomcast.toml")];
  fs.chmodSync(directory, 0o755);
  fs.writeFileSync(configuration, toml({ listen: `127.0.0.1:${port}`, ...configure({}) }));
  const hardened = ["--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--network=host"];
  const volume = `--volume=${configuration}:/etc/roomcast/roomcast.toml:ro`;
  await podman("run", "--detach", "--name=node", ...hardened, volume, IMAGE);
  const node = { url: `http://127.0.0.1:${port}`, socketUrl: `ws://127.0.0.1:${port}` };
  await until(async () => (await request(`${node.url}/health`).catch(() => undefined))?.status === 200, "/health answering 200", 30_000);

  assert.equal(await podman("exec", "node", "/roomcast", "--version"), expectedVersion());
  const status = fs.readFileSync(`/proc/${(await podman("inspect", "--format={{.State.Pid}}", "node")).trim()}/status`, "utf8");
  const value = (name) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)[1];
  assert.deepEqual([value("Uid"), value("CapEff"), value("NoNewPrivs")], ["65532", "0".repeat(16), "1"]);
  const written = await run("podman", ["exec", "node", "/roomcast", "init", "--dir", "/"], { env });
  assert.match(written.output, /Read-only file system/);

  await podman("healthcheck", "run", "node");
  const client = keep(connectWs(node, { token: tokenFor("7") }));
  await client.welcomed();
  await client.join("room:a");
  await published(node, { room: "room:a", event: "tick", data: 1 });
  assert.equal((await client.event("tick")).data, 1);

  await podman("stop", "--time=20", "node");
  assert.equal((await client.ended()).code, 1001);
  assert.equal((await podman("inspect", "--format={{.State.ExitCode}}", "node")).trim(), "0");
});

distTest("the image trusts the certificates that it holds, and those that are mounted over them", async ({ directory, keep }) => {
  const env = containers(directory);
  await output(path.join(ROOT, "packaging/image.sh"), [IMAGE], { env });
  const [key, certificate] = ["key.pem", "certificate.pem"].map((name) => path.join(directory, name));
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
  await output("openssl", ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", ...subject, "-keyout", key, "-out", certificate]);
  let asked = 0;
  const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(certificate) }, (_, response) => ((asked += 1), response.end('{"keys":[]}')));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  keep({ close: () => (server.closeAllConnections(), server.close()) });

  const jwks = `--env=ROOMCAST_AUTH__JWKS_URL=https://localhost:${server.address().port}/`;
  const check = (...options) => run("podman", ["run", "--rm", "--network=host", jwks, "--env=ROOMCAST_AUTH__ALGORITHMS=RS256", ...options, IMAGE, "check"], { env });
  const unknown = await check();
  assert.match(unknown.output, /certificate|UnknownIssuer/);
  assert.deepEqual([unknown.code, asked], [2, 0]);
  const known = await check(`--volume=${certificate}:/etc/ssl/certs/ca-certificates.crt:ro`);
  assert.doesNotMatch(known.output, /certificate|UnknownIssuer/);
  assert.ok(asked >= 1, "the key server was asked");
});

distTest("a container without a configuration says what it needs, and runs the demo", async ({ directory, keep }) => {
  const env = containers(directory);
  await output(path.join(ROOT, "packaging/image.sh"), [IMAGE], { env });
  keep({ close: () => run("podman", ["rm", "--all", "--force"], { env }) });
  const bare = await run("podman", ["run", "--rm", "--network=host", IMAGE], { env });
  assert.equal(bare.code, 2);
  assert.match(bare.output, /JWT_SECRET/);

  const demo = await serve(keep, "podman", ["run", "--rm", "--network=host", IMAGE, "demo"], env, "0.0.0.0");
  assert.match((await request(`http://localhost:${new URL(demo.url).port}/`)).text, /<title>/);
  assert.deepEqual(await demo.stop("SIGTERM", 20_000), { code: 0, signal: null });
});
