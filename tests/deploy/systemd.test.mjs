// deploy/systemd: the unit is valid and the process may do little.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { DEPLOY, read, run, seconds, shutdownDefault, withDirectory } from "./tools.mjs";

const UNIT = "systemd/roomcast.service";
/** The exposure that `systemd-analyze security` may find, of 10, times 10. */
const MAX_EXPOSURE = 15;

/** A tree with the unit and the program that it starts. */
async function installed(change, body) {
  await withDirectory(async (root) => {
    const units = path.join(root, "etc/systemd/system");
    fs.mkdirSync(units, { recursive: true });
    fs.mkdirSync(path.join(root, "usr/bin"), { recursive: true });
    fs.writeFileSync(path.join(root, "usr/bin/roomcast"), "#!/bin/sh\n", { mode: 0o755 });
    // Those of systemd that the unit leads to.
    for (const target of ["sysinit", "basic", "shutdown", "network-online", "multi-user"]) fs.writeFileSync(path.join(units, `${target}.target`), "[Unit]\n");
    fs.writeFileSync(path.join(units, "roomcast.service"), change(read("deploy", UNIT)));
    await body(root);
  });
}

const verify = (root) => run("systemd-analyze", ["verify", "--man=no", `--root=${root}`, "roomcast.service"]);

test("systemd accepts the unit", async () => {
  await installed((unit) => unit, async (root) => {
    const { code, output } = await verify(root);
    // A key that it does not know is only a line of output.
    assert.deepEqual({ code, output: output.trim() }, { code: 0, output: "" });
  });
});

test("systemd reports a mistake, so its silence means something", async () => {
  await installed((unit) => unit.replace("ProtectSystem=", "ProtectSystems="), async (root) => {
    assert.match((await verify(root)).output, /ProtectSystems/);
  });
});

test("the sandbox leaves little exposed", async () => {
  await installed((unit) => unit, async (root) => {
    const check = ["security", "--offline=true", `--root=${root}`, `--threshold=${MAX_EXPOSURE}`, "--no-pager", "roomcast.service"];
    const { code, output } = await run("systemd-analyze", check);
    assert.equal(code, 0, output);
    assert.match(output, /Overall exposure level for roomcast.service: 1\./);
  });
});

test("limits: a file for each connection, no core dumps, and time to drain", () => {
  const unit = fs.readFileSync(path.join(DEPLOY, UNIT), "utf8");
  const value = (key) => new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1];
  assert.equal(value("LimitCORE"), "0");
  assert.ok(Number(value("LimitNOFILE")) >= 1 << 20);
  assert.ok(seconds(value("TimeoutStopSec")) > shutdownDefault("timeout"));
});
