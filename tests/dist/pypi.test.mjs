// The wheel, installed with pip into a fresh environment, where there is no Rust toolchain.
import assert from "node:assert/strict";
import path from "node:path";
import { request } from "../harness/http.mjs";
import { DIST, PATH_WITHOUT_RUST, distTest, expectedVersion, output, run, serve } from "./dist.mjs";

distTest("pip finds the wheel that fits, and the installed program serves", async ({ directory, keep }) => {
  const env = { PATH: PATH_WITHOUT_RUST, HOME: directory };
  assert.notEqual((await run("cargo", ["--version"], { env })).code, 0, "there is a cargo");
  const venv = path.join(directory, "venv");
  await output("python3", ["-m", "venv", venv], { env: process.env });
  const pip = (...args) => output(path.join(venv, "bin/python"), ["-m", "pip", "--disable-pip-version-check", ...args], { env });
  await pip("install", "-q", "--no-index", "--find-links", DIST, "roomcast");

  const program = path.join(venv, "bin/roomcast");
  assert.equal(await output(program, ["--version"], { env }), expectedVersion());
  const demo = await serve(keep, program, ["demo"], env);
  assert.match((await request(demo.url)).text, /<title>/);
  assert.deepEqual(await demo.stop("SIGTERM", 30_000), { code: 0, signal: null });

  // Every installed file is in RECORD, with its hash.
  await pip("check");
  await pip("uninstall", "-q", "-y", "roomcast");
  assert.notEqual((await run(program, ["--version"], { env })).code, 0);
});
