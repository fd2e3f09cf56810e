// python-socketio, the other client that people use.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import path from "node:path";
import { until, within } from "./harness/deadline.mjs";
import { published } from "./harness/publish.mjs";
import { scenario, suite } from "./harness/scenario.mjs";
import { tokenFor } from "./harness/token.mjs";

const PYTHON = path.join(import.meta.dirname, ".venv/bin/python");
const CLIENT = path.join(import.meta.dirname, "harness/client.py");

/** The client prints one JSON line for all that happens, and ends when it got `end`. */
function python(node, token, transports) {
  const child = spawn(PYTHON, [CLIENT, node.url, token, transports.join(",")]);
  const client = { lines: [], errors: "", close: () => child.kill() };
  let rest = "";
  child.stdout.on("data", (chunk) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    client.lines.push(...lines.map((line) => JSON.parse(line)));
  });
  child.stderr.on("data", (chunk) => (client.errors += chunk));
  const exited = new Promise((resolve) => child.once("close", resolve));
  client.line = (name) =>
    until(() => client.lines.find((line) => line[0] === name), () => `${name} in ${JSON.stringify(client.lines)} ${client.errors}`);
  client.exit = () => within(exited, "the python client's end");
  return client;
}

suite("python-socketio", () => {
  for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
    scenario(`${transports.join(" then ")}: connects, joins, is acknowledged, receives text and binary`, async ({ node, keep }) => {
      const one = await node({ recovery: { window: "0s" } });
      const client = keep(python(one, tokenFor("7"), transports));
      await client.line("connected");
      assert.deepEqual(await client.line("joined"), ["joined", { ok: true }]);
      assert.deepEqual(await client.line("echo"), ["echo", 1, "é", { a: null }]);
      assert.deepEqual(await client.line("binary echo"), ["binary echo", "00ff"]);
      await published(one, { room: "room:a", event: "news", args: [{ id: 1 }, "two"] });
      await published(one, { room: "room:a", event: "file", data: { $binary: "AP8=" } });
      assert.deepEqual(await client.line("news"), ["news", { id: 1 }, "two"]);
      assert.deepEqual(await client.line("file"), ["file", "00ff"]);
      await published(one, { room: "room:a", event: "end", data: 1 });
      assert.equal(await client.exit(), 0, client.errors);
    });
  }

  scenario("a bad token makes connect() raise", async ({ node, keep }) => {
    const one = await node();
    const client = keep(python(one, "not a token", ["websocket"]));
    assert.equal((await client.line("refused"))[0], "refused");
    assert.notEqual(await client.exit(), 0);
  });
});
