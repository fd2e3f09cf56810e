// The console's page that is committed is what its sources build to.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { gunzipSync } from "node:zlib";

const root = path.join(import.meta.dirname, "../..");
const committed = path.join(root, "src/http/console/page");

test("the committed page is what its sources build to", { timeout: 240_000 }, () => {
  const built = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-console-"));
  try {
    execFileSync(process.execPath, [path.join(root, "packages/console/build.mjs"), built]);
    assert.deepEqual(fs.readdirSync(committed).sort(), fs.readdirSync(built).sort());
    for (const name of fs.readdirSync(built).filter((name) => !name.endsWith(".gz"))) {
      const wanted = fs.readFileSync(path.join(built, name), "utf8");
      const hint = `${name} is not what packages/console builds to: run npm run build there`;
      assert.equal(fs.readFileSync(path.join(committed, name), "utf8") === wanted, true, hint);
      // Other versions of zlib compress differently.
      assert.equal(gunzipSync(fs.readFileSync(path.join(committed, `${name}.gz`))).toString() === wanted, true, `${hint} (${name}.gz)`);
    }
  } finally {
    fs.rmSync(built, { recursive: true, force: true });
  }
});
