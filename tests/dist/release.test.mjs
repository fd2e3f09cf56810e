// The release workflow, which runs nowhere but on a tag: what it names is there, and its actions are pinned.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { ROOT, VERSION, artifact } from "./dist.mjs";

const read = (name) => fs.readFileSync(path.join(ROOT, name), "utf8");
const { jobs } = parse(read(".github/workflows/release.yml"));
const steps = Object.values(jobs).flatMap((job) => job.steps);

test("actions are pinned by commit", () => {
  const used = steps.flatMap(({ uses }) => uses ?? []);
  assert.ok(used.length > 5);
  for (const action of used) assert.match(action, /^[\w-]+\/[\w-]+@[0-9a-f]{40}$/);
});

test("jobs that publish wait for the tests, and have only their own rights", () => {
  assert.deepEqual(parse(read(".github/workflows/release.yml")).permissions, { contents: "read" });
  for (const [name, job] of Object.entries(jobs)) {
    assert.equal(job.needs, name === "build" ? undefined : "build", name);
    assert.equal(job.permissions?.contents === "write", name === "release", name);
  }
});

test("the make targets and files that it names exist", () => {
  const commands = steps.map(({ run }) => run ?? "").join("\n");
  const makefile = read("Makefile");
  const targets = [...commands.matchAll(/\bmake ([\w-]+)$/gm)].map(([, target]) => target);
  assert.deepEqual(targets, ["tools", "dist", "test-dist-built"]);
  for (const target of targets) assert.match(makefile, new RegExp(`^${target}:`, "m"));
  for (const name of ["roomcast", "roomcast-linux-x64", "roomcast-linux-arm64"]) assert.ok(commands.includes(name), name);
  artifact(`roomcast-${VERSION}.tgz`);
});

test("all packages and the chart have one version", () => {
  const main = JSON.parse(read("packages/roomcast/package.json"));
  assert.deepEqual([main.version, ...Object.values(main.optionalDependencies)], [VERSION, VERSION, VERSION]);
  assert.equal(JSON.parse(read("packages/server/package.json")).version, VERSION);
  assert.equal(parse(read("deploy/helm/roomcast/Chart.yaml")).appVersion, VERSION);
});
