// @roomcast/server in the runtimes that its page names, against the real binary.
import assert from "node:assert/strict";
import path from "node:path";
import { KEY, SECRET } from "../harness/config.mjs";
import { until, within } from "../harness/deadline.mjs";
import { Daemon } from "../harness/node.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const SCRIPT = path.join(import.meta.dirname, "runtime.mjs");
const installed = (name) => path.join(import.meta.dirname, "../node_modules/.bin", name);
const RUNTIMES = {
  node: [process.execPath, [SCRIPT]],
  bun: [installed("bun"), ["run", SCRIPT]],
  deno: [installed("deno"), ["run", "--no-config", "--allow-net", "--allow-env", "--allow-read", SCRIPT]],
};

suite("@roomcast/server in each runtime", () => {
  for (const [runtime, [command, args]] of Object.entries(RUNTIMES)) {
    scenario(`${runtime} publishes, drains an outbox, and answers what is signed`, async (scene) => {
      const node = await scene.node();
      const listening = await (await scene.io(node, { token: tokenFor("7") }).connected()).join("room:a");
      const env = { ROOMCAST_URL: node.url, ROOMCAST_PUBLISH__KEYS: KEY, ROOMCAST_BACKEND__SECRET: SECRET };
      const backend = new Daemon(args, env, command);
      await within(backend.exited, `the end of ${runtime}: ${backend.output}`, 30_000).finally(() => backend.signal("SIGKILL"));
      assert.equal(backend.exit.code, 0, backend.output);
      assert.deepEqual(JSON.parse(backend.stdout), { runtime, repeated: true, left: 0, allowed: { allow: true }, forged: 401 });
      await until(() => listening.argsOf("said").length >= 2, "both events");
      assert.deepEqual(listening.argsOf("said"), [[{ text: "hi" }], [{ text: "saved" }]]);
    });
  }
});
