// Signals: which ones stop a node, and which ones do not.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

suite("signals", () => {
  for (const signal of ["SIGHUP", "SIGUSR1", "SIGUSR2"]) {
    scenario(`${signal} does not stop a node and is logged`, async ({ node, ws }) => {
      const one = await node();
      const client = await ws(one, { token: tokenFor("7") }).welcomed();
      for (const count of [1, 2]) {
        one.signal(signal);
        await until(() => one.output.split(signal).length > count, `line ${count} about ${signal}`);
      }
      client.send({ type: "ping" });
      await client.message("pong");
      assert.equal((await one.get("/health")).status, 200);
    });
  }

  for (const signal of ["SIGTERM", "SIGINT"]) {
    scenario(`${signal} stops the node with exit code 0, also if SIGHUP arrives meanwhile`, async ({ node }) => {
      const one = await node();
      one.signal("SIGHUP");
      const stopped = one.stop(signal);
      one.signal("SIGHUP");
      assert.deepEqual(await stopped, { code: 0, signal: null });
    });
  }
});
