// The pages for operators: their commands work, and their decision tree leads to causes that are there.
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { BINARY } from "../harness/node.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { blocks, read, run } from "./tools.mjs";

const PAGE = "docs/troubleshooting.md";
const LOCAL = "http://localhost:8080";

/** Runs the first commands of a page against a node; `set -e` ends them at the first that fails. */
async function commandsOf(page, from, node) {
  const [commands] = blocks(read(page), "sh");
  assert.ok(commands.includes(from), page);
  // The commands of roomcast ask the node that the configuration names. ROOMCAST_BIN is the tests', and none of its keys.
  const env = { ROOMCAST_PUBLISH__KEYS: KEY, ROOMCAST_LISTEN: `127.0.0.1:${node.port}`, PATH: `${path.dirname(BINARY)}:${process.env.PATH}`, ROOMCAST_BIN: undefined };
  return run("bash", ["-euo", "pipefail", "-c", commands.replaceAll(from, node.url)], { env });
}

suite("the commands of the pages", () => {
  scenario("docs/troubleshooting.md: what is wrong with a user", async (s) => {
    const node = await s.node({ rooms: [{ match: "conversation:<id>", join: "allow" }] });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    await client.join("conversation:42");
    await s.ws(node, { token: "wrong" }).ended();
    const { code, output } = await commandsOf(PAGE, LOCAL, node);
    assert.equal(code, 0, output);
    for (const answer of ['"status":"live"', '"online":true', '"users":["7"]', '"offset":', 'roomcast_refusals_total{reason="token"} 1']) {
      assert.ok(output.includes(answer), `${answer} in ${output}`);
    }
    assert.equal((await client.event("test")).data, 1);
    await until(() => /refused: .*reason="token"/.test(node.output), () => `the refusal in ${node.output}`);
  });

  scenario("docs/runbooks.md: what is wrong with a node", async (s) => {
    const node = await s.node();
    const { code, output } = await commandsOf("docs/runbooks.md", "http://roomcast-1:8080", node);
    assert.equal(code, 0, output);
    for (const answer of ['"status":"ok"', '"status":"live"', "roomcast_redis_up 1"]) assert.ok(output.includes(answer), `${answer} in ${output}`);
  });
});

test("each end of the decision tree has a section, and each section is an end", () => {
  const [tree] = blocks(read(PAGE), "text");
  const ends = [...tree.matchAll(/"([A-Z][^"]+)"/g)].map(([, end]) => end);
  const sections = [...read(PAGE).split("\n## ")[1].matchAll(/^### (.*)$/gm)].map(([, title]) => title);
  assert.deepEqual(ends, sections);
});

test("the pages name metrics, keys and reasons that are there", async () => {
  const metrics = read("docs/metrics.md");
  for (const page of [PAGE, "docs/runbooks.md", "docs/kubernetes.md"]) {
    const text = read(page);
    for (const [name] of text.matchAll(/\broomcast_[a-z_]+/g)) assert.ok(metrics.includes(`\`${name.replace(/_(bucket|sum|count)$/, "")}\``), `${page}: ${name}`);
    for (const [, label, value] of text.matchAll(/(reason|result)="([a-z_]+)"/g)) assert.ok(metrics.includes(`\`${value}\``), `${page}: ${label} ${value}`);
    for (const [, key] of text.matchAll(/`((?:redis|http|auth|publish|cors|socketio|recovery|limits|presence|backend|log)\.[a-z_]+)\b/g)) {
      const [section, name] = key.split(".");
      const keys = read("docs/configuration.md").split(`\n## [${section}]\n`)[1]?.split("\n## ")[0] ?? "";
      assert.ok(keys.includes(`| \`${name}\` `), `${page}: ${key}`);
    }
  }
  const { output } = await run(BINARY, ["--help"]);
  for (const [, command] of (read(PAGE) + read("docs/runbooks.md")).matchAll(/`roomcast ([a-z]+)/g)) assert.ok(output.includes(`  ${command} `), command);
});
