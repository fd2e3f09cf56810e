// python-socketio, the Python client.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import path from "node:path";
import { until, within } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const PYTHON = path.join(import.meta.dirname, "../.venv/bin/python");
const CLIENT = path.join(import.meta.dirname, "../harness/python_client.py");

/** Starts the client: it prints one JSON line for everything that happens, and exits when it gets `end`. */
function python(node, token, transports, namespace = "/", where = "auth") {
  const child = spawn(PYTHON, [CLIENT, node.url, token, transports.join(","), namespace, where]);
  const client = { lines: [], errors: "", close: () => child.kill() };
  let rest = "";
  child.stdout.on("data", (chunk) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop();
    client.lines.push(...lines.map((line) => JSON.parse(line)));
  });
  child.stderr.on("data", (chunk) => (client.errors += chunk));
  const exited = new Promise((resolve) => child.once("close", resolve));
  // Python may take long to start.
  client.line = (name) =>
    until(() => client.lines.find((line) => line[0] === name), () => `${name} in ${JSON.stringify(client.lines)} ${client.errors}`, 60_000);
  client.exit = () => within(exited, "the python client's end", 60_000);
  return client;
}

/** The usual rules in a namespace, and what the five systems use too: a welcome, an error event, an error acknowledgement. */
const inNamespace = (namespace) => ({
  socketio: { namespaces: ["/", namespace] },
  on: [
    { event: "connection", reply: { event: "welcome", args: [{ userId: "{user}" }] } },
    { event: "join", join: "room:{0}", ack: [{ ok: true }] },
    {
      event: "sneak", join: "closed:{0}", on_error: { event: "refused", args: [{ message: "{error}" }] },
      ack_error: [{ ok: false, error: "{error}" }],
    },
    { event: "echo", ack: ["{args}"] },
    { event: "say", emit: [{ room: "room:{0}", event: "said", args: ["{user}", "{1}"] }] },
  ].map((rule) => ({ namespace, ...rule })),
});

const TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]];

suite("python-socketio", () => {
  for (const [namespace, transports] of ["/", "/chat"].flatMap((name) => TRANSPORTS.map((each) => [name, each]))) {
    scenario(`${namespace} by ${transports.join(" then ")}: the client connects, joins, gets acknowledgements and refusals, and receives text and binary`, async ({ node, keep, io }) => {
      const one = await node({ recovery: { window: "0s" }, ...inNamespace(namespace) });
      const other = await (await io(one, { token: tokenFor("8"), namespace }).connected()).join("room:a");
      const client = keep(python(one, tokenFor("7"), transports, namespace));
      await client.line("connected");
      assert.deepEqual(await client.line("welcome"), ["welcome", { userId: "7" }]);
      assert.deepEqual(await client.line("joined"), ["joined", { ok: true }]);
      const [, { ok, error }] = await client.line("not joined");
      assert.deepEqual([ok, await client.line("error")], [false, ["error", { message: error }]]);
      assert.deepEqual(await client.line("echo"), ["echo", 1, "é", { a: null }]);
      assert.deepEqual(await client.line("binary echo"), ["binary echo", "00ff"]);
      assert.deepEqual(await other.event("said"), ["7", { hello: 1 }]);
      await published(one, { room: "room:a", event: "news", args: [{ id: 1 }, "two"], namespace });
      await published(one, { room: "room:a", event: "file", data: { $binary: "AP8=" }, namespace });
      assert.deepEqual(await client.line("news"), ["news", { id: 1 }, "two"]);
      assert.deepEqual(await client.line("file"), ["file", "00ff"]);
      await published(one, { room: "room:a", event: "end", data: 1, namespace });
      assert.equal(await client.exit(), 0, client.errors);
    });
  }

  for (const where of ["header", "query"]) {
    scenario(`the token is accepted in the ${where}`, async ({ node, keep }) => {
      const one = await node({ recovery: { window: "0s" }, ...inNamespace("/") });
      for (const transports of TRANSPORTS) {
        const client = keep(python(one, tokenFor("7"), transports, "/", where));
        assert.deepEqual(await client.line("welcome"), ["welcome", { userId: "7" }]);
      }
    });
  }

  scenario("with recovery, each event has its offset as last argument, as the reference server sends it", async ({ node, keep }) => {
    const one = await node(inNamespace("/"));
    const client = keep(python(one, tokenFor("7"), ["websocket"]));
    await client.line("binary echo");
    const offset = await published(one, { room: "room:a", event: "news", data: { id: 1 } });
    assert.deepEqual(await client.line("news"), ["news", { id: 1 }, offset]);
  });

  scenario("a bad token makes connect() raise", async ({ node, keep }) => {
    const one = await node();
    const client = keep(python(one, "not a token", ["websocket"]));
    assert.equal((await client.line("refused"))[0], "refused");
    assert.notEqual(await client.exit(), 0);
  });
});
