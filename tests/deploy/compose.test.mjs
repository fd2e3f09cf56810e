// deploy/compose: the file is valid, and its services work together.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { BINARY } from "../harness/node.mjs";
import { DEPLOY, blocks, read, run, seconds, shutdownDefault, withDirectory, yaml } from "./tools.mjs";

const FILE = path.join(DEPLOY, "compose/compose.yaml");

test("docker-compose accepts the file", async () => {
  const { code, output } = await run("docker-compose", ["-f", FILE, "config"]);
  assert.equal(code, 0, output);
  assert.deepEqual(Object.keys(parse(output).services).sort(), ["api", "nginx", "redis", "roomcast", "secrets"]);
});

test("docker-compose reports a mistake, so its silence means something", async () => {
  await withDirectory(async (directory) => {
    const broken = path.join(directory, "compose.yaml");
    fs.writeFileSync(broken, read("deploy/compose/compose.yaml").replace("stop_grace_period:", "stop_grace:"));
    const { code, output } = await run("docker-compose", ["-f", broken, "config", "-q"]);
    assert.notEqual(code, 0, output);
  });
});

test("Docker waits longer than roomcast needs to stop", () => {
  const { stop_grace_period } = yaml("deploy/compose/compose.yaml").services.roomcast;
  assert.ok(seconds(stop_grace_period) > shutdownDefault("timeout"), stop_grace_period);
});

test("the services work together: same commands, names, ports and mounted files", { timeout: 240_000 }, async () => {
  await withDirectory(async (directory) => {
    const host = path.join(import.meta.dirname, "compose_host.mjs");
    const namespaces = path.join(import.meta.dirname, "compose_namespaces.sh");
    const inside = [path.join(DEPLOY, "compose"), directory, process.execPath, host];
    const { code, output } = await run(namespaces, inside, { env: { ROOMCAST_BIN: BINARY }, timeout: 200_000 });
    assert.equal(code, 0, output);
    assert.match(output, /the services of compose.yaml work together/);
  });
});

test("docs/deploy.md shows these files", () => {
  const page = read("docs/deploy.md");
  assert.equal(blocks(page, "yaml")[0], read("deploy/compose/compose.yaml"));
  assert.equal(blocks(page, "nginx")[0], read("deploy/compose/nginx.conf"));
});
