// The package as it is published: its files, its types in use, and what the compiler refuses.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const here = import.meta.dirname;
const PACKAGE = path.join(here, "../../packages/server");
const TSC = path.join(here, "../node_modules/.bin");
const env = { ...process.env, PATH: `${TSC}${path.delimiter}${process.env.PATH}` };
const TIMEOUT = 300_000;

const output = async (command, args, cwd) => {
  const { stdout } = await run(command, args, { cwd, env }).catch((error) => {
    throw new Error(`${command} ${args.join(" ")}: ${error.stdout}${error.stderr}`);
  });
  return stdout;
};

test("the packed package is found by its name, and its types hold in the usage examples", { timeout: TIMEOUT }, async () => {
  const installed = path.join(here, "node_modules/@roomcast/server");
  fs.rmSync(installed, { recursive: true, force: true });
  fs.mkdirSync(installed, { recursive: true });
  try {
    const [{ filename, files }] = JSON.parse(await output("npm", ["pack", "--json", "--pack-destination", installed], PACKAGE));
    await output("tar", ["-xzf", filename, "--strip-components=1"], installed);
    const names = files.map(({ path: name }) => name).filter((name) => !name.startsWith("types/"));
    const sources = fs.readdirSync(path.join(PACKAGE, "src")).filter((name) => name.endsWith(".js"));
    assert.deepEqual(names.sort(), ["LICENSE", "README.md", "package.json", ...sources.map((name) => `src/${name}`)].sort());

    await output("tsc", ["-p", "types"], here);
    const exported = await output(process.execPath, ["--input-type=module", "-e", 'console.log(Object.keys(await import("@roomcast/server")).join())'], here);
    assert.equal(exported.trim(), "BatchError,MemoryOutboxStore,Outbox,Roomcast,RoomcastError,SignatureError,createWebhook,signWebhook,verifyWebhook");
    const { dependencies } = JSON.parse(fs.readFileSync(path.join(installed, "package.json"), "utf8"));
    assert.equal(dependencies, undefined);
  } finally {
    fs.rmSync(path.join(here, "node_modules"), { recursive: true, force: true });
  }
});
