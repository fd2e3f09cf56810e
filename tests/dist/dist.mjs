// What `make test-dist` built, and how to run it where nothing of this repository's tools is.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";

export const ROOT = path.resolve(import.meta.dirname, "../..");
export const DIST = path.join(ROOT, "target/dist");
export const VERSION = /^version = "(.*)"$/m.exec(fs.readFileSync(path.join(ROOT, "Cargo.toml"), "utf8"))[1];
/** How each system names this machine's architecture. */
export const NATIVE = { x64: { rust: "x86_64", debian: "amd64", node: "x64" }, arm64: { rust: "aarch64", debian: "arm64", node: "arm64" } }[process.arch];
export const artifact = (name) => {
  const file = path.join(DIST, name);
  assert.ok(fs.existsSync(file), `${file} is missing; run \`make test-dist\``);
  return file;
};

const TIMEOUT = 300_000;
/** A test with a directory of its own, and `keep` for what ends with it. */
export const distTest = (name, body) =>
  test(name, { timeout: TIMEOUT }, async () => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-dist-"));
    const kept = [];
    try {
      await body({ directory, keep: (thing) => (kept.push(thing), thing) });
    } finally {
      for (const thing of kept.reverse()) await thing.close();
      fs.rmSync(directory, { recursive: true, force: true });
    }
  });

// Directories with a Rust toolchain or a compiler's wrapper are left out: the packages must not need them.
export const PATH_WITHOUT_RUST = process.env.PATH.split(path.delimiter)
  .filter((directory) => !["cargo", "rustc"].some((program) => fs.existsSync(path.join(directory, program))))
  .join(path.delimiter);

/** Runs a program that ends by itself: `{ code, stdout, output }`. Its environment is `env` alone. */
export function run(program, args, { cwd, env = process.env } = {}) {
  return new Promise((resolve) => {
    execFile(program, args, { cwd, env, timeout: TIMEOUT, maxBuffer: 1 << 24 }, (error, stdout, stderr) =>
      resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, output: stdout + stderr }));
  });
}

/** The standard output of a program that must succeed. */
export async function output(program, args, options) {
  const { code, stdout, output: all } = await run(program, args, options);
  assert.equal(code, 0, `${program} ${args.join(" ")}: ${all}`);
  return stdout;
}

/** A process that is killed with the test, if it is still there. */
export function daemon(keep, program, args, env) {
  const started = new Daemon(args, env, program);
  keep({ close: () => started.exit ?? (started.signal("SIGKILL"), started.exited) });
  return started;
}

/** Runs `roomcast serve`, `dev` or `demo` on a free port until it is ready. */
export async function serve(keep, program, args, env, host = "127.0.0.1") {
  const port = await freePort();
  const node = daemon(keep, program, [...args, "--listen", `${host}:${port}`], env);
  node.url = `http://127.0.0.1:${port}`;
  await until(async () => {
    assert.ok(!node.exit, `it ended: ${node.output}`);
    return (await request(`${node.url}/health`).catch(() => undefined))?.status === 200;
  }, () => `/health answering 200: ${node.output}`, 30_000);
  return node;
}

/** What `roomcast --version` must print of what was built. */
export function expectedVersion() {
  const { properties } = JSON.parse(fs.readFileSync(artifact(`roomcast-${VERSION}.cdx.json`), "utf8")).metadata.component;
  return `roomcast ${VERSION} (${properties.find(({ name }) => name === "roomcast:commit").value})\n`;
}
