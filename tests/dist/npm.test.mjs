// The npm package `roomcast`, installed from what `make dist` packed, where there is no Rust toolchain.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { NATIVE, PATH_WITHOUT_RUST, VERSION, artifact, distTest, expectedVersion, output, run, serve } from "./dist.mjs";
import { startRegistry } from "./registry.mjs";

const MAIN = artifact(`roomcast-${VERSION}.tgz`);
const PLATFORM = artifact(`roomcast-linux-${NATIVE.node}-${VERSION}.tgz`);

async function freshMachine({ directory, keep }) {
  const [home, cwd] = ["home", "project"].map((name) => path.join(directory, name));
  for (const folder of [home, cwd]) fs.mkdirSync(folder);
  const env = { PATH: PATH_WITHOUT_RUST, HOME: home, npm_config_registry: await startRegistry(keep), npm_config_update_notifier: "false" };
  assert.notEqual((await run("cargo", ["--version"], { env })).code, 0, "there is a cargo");
  return { env, cwd };
}

async function installed(machine, ...options) {
  fs.writeFileSync(path.join(machine.cwd, "package.json"), "{}");
  await output("npm", ["install", "--no-audit", "--no-fund", ...options], machine);
  return path.join(machine.cwd, "node_modules/.bin/roomcast");
}

distTest("npx fetches the package from a registry; init, dev and demo run", async (context) => {
  const { env, cwd } = await freshMachine(context);
  assert.equal(await output("npx", ["--yes", "roomcast", "--version"], { env, cwd }), expectedVersion());

  await output("npx", ["--yes", "roomcast", "init", "--express"], { env, cwd });
  assert.deepEqual(fs.readdirSync(cwd).sort(), [".env", "roomcast.mjs", "roomcast.toml"]);
  // `dev` reads both from the folder in which it is started.
  const dev = await serve(context.keep, "sh", ["-c", `cd ${cwd} && exec npx --yes roomcast dev "$@"`, "npx"], env);
  const key = /^ROOMCAST_PUBLISH__KEYS=(.*)$/m.exec(fs.readFileSync(path.join(cwd, ".env"), "utf8"))[1];
  const publish = { method: "POST", headers: { authorization: `Bearer ${key}` }, body: JSON.stringify({ room: "a", event: "b", data: 1 }) };
  assert.equal((await request(`${dev.url}/publish`, publish)).status, 200);
  await dev.stop("SIGTERM", 30_000);
  await until(() => request(`${dev.url}/health`).then(() => false, () => true), "the server ending with npx", 30_000);

  const demo = await serve(context.keep, "npx", ["--yes", "roomcast", "demo"], env);
  await until(() => /curl/.test(demo.stdout), () => `a command to try: ${demo.output}`);
  await demo.stop("SIGTERM", 30_000);
});

distTest("npm install of the files: arguments, exit codes and signals reach the binary", async (context) => {
  const machine = await freshMachine(context);
  const program = await installed(machine, PLATFORM, MAIN);
  const missing = await run(program, ["check", "--config", "/no/such.toml"], machine);
  assert.equal(missing.code, 2, missing.output);
  assert.match(missing.output, /cannot read the file \/no\/such\.toml/);

  const node = await serve(context.keep, program, ["demo"], machine.env);
  assert.deepEqual(await node.stop("SIGTERM", 30_000), { code: 0, signal: null });
  await assert.rejects(request(`${node.url}/health`));

  const killed = await serve(context.keep, program, ["demo"], machine.env);
  const [child] = fs.readFileSync(`/proc/${killed.process.pid}/task/${killed.process.pid}/children`, "utf8").trim().split(" ");
  process.kill(Number(child), "SIGKILL");
  assert.deepEqual(await killed.exited, { code: 128 + 9, signal: null });
});

distTest("without a binary for the platform, the program says what to do", async (context) => {
  const machine = await freshMachine(context);
  const program = await installed(machine, "--omit=optional", MAIN);
  const bare = await run(program, ["--version"], machine);
  assert.equal(bare.code, 1);
  assert.match(bare.output, new RegExp(`@roomcast/linux-${NATIVE.node} is missing. Install again, with optional dependencies`));

  const elsewhere = path.join(context.directory, "mac.cjs");
  fs.writeFileSync(elsewhere, 'Object.defineProperty(process, "platform", { value: "darwin" });');
  const mac = await run(process.execPath, ["--require", elsewhere, program, "--version"], machine);
  assert.equal(mac.code, 1);
  assert.match(mac.output, /no binary for darwin-\w+, only for linux-x64 and linux-arm64\. Use the container image/);
});
