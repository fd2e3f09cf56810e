// "A first message in five minutes" of README.md, walked by a stranger: a fresh folder, the commands in their order, curl and a real browser.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after } from "node:test";
import { BINARY_FOLDER, Daemon } from "../harness/node.mjs";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { startPages } from "./page.mjs";
import { assertAllRun, snippet } from "./snippets.mjs";

const PAGE = "README.md";

suite("README.md", () => {
  after(() => assertAllRun("walk.test.mjs"));
  scenario("a first message in five minutes", async (s) => {
    const began = Date.now();
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-walk-"));
    const pages = s.serve(await startPages());
    s.serve({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
    const port = await freePort();
    // The port of the page and that of the test's own pages are the only things that differ from what the page shows.
    const commands = [
      "trap 'kill $(jobs -p)' EXIT",
      "trap exit TERM",
      snippet(PAGE, "sh", "cargo build").replace(/^cargo build.*$/m, "").replaceAll("/tmp/first", `${directory}/first`),
      `sed -i 's/:80[8]0/:${port}/; s|http://localhost:3000|${pages.origin}|' roomcast.toml`,
      snippet(PAGE, "sh", "set -a"),
      "until roomcast health --url http://localhost:8080 >/dev/null 2>&1; do :; done",
      snippet(PAGE, "sh", "curl -N"),
      `until curl -s -H "Authorization: Bearer $ROOMCAST_PUBLISH__KEYS" http://localhost:8080/rooms/chat:42 | grep -q '"connections":1'; do :; done`,
      snippet(PAGE, "sh", "curl -s http://localhost:8080/publish"),
      'echo; echo TOKEN="$(roomcast token --user 7)"; wait',
    ];
    const shell = new Daemon(["-euo", "pipefail", "-c", commands.join("\n").replaceAll(":8080", `:${port}`)], { PATH: `${BINARY_FOLDER}:${process.env.PATH}` }, "bash");
    s.keep({ close: () => shell.signal("SIGTERM") });
    await until(() => /TOKEN=\S+/.test(shell.output), () => `the end of the walk: ${shell.output}`, 120_000);
    assert.ok(shell.output.includes('{"offset":"'), shell.output);
    // curl listens beside the commands, and may write it after them.
    await until(() => /event: message\ndata: {"text":"Hello"}/.test(shell.output), () => `the event in ${shell.output}`);

    const [, token] = /TOKEN=(\S+)/.exec(shell.output);
    const { page, called } = await pages.run({ url: `http://localhost:${port}` }, snippet(PAGE, "js", "join_chat"), ["show"], token);
    s.keep({ close: () => page.close() });
    const env = Object.fromEntries(fs.readFileSync(path.join(directory, "first/.env"), "utf8").split("\n").filter((line) => /^\w+=/.test(line)).map((line) => line.split("=")));
    await until(async () => {
      const answer = await fetch(`http://localhost:${port}/rooms/chat:42`, { headers: { authorization: `Bearer ${env.ROOMCAST_PUBLISH__KEYS}` } });
      return (await answer.json()).connections === 2;
    }, "the page in the room");
    await fetch(`http://localhost:${port}/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${env.ROOMCAST_PUBLISH__KEYS}` },
      body: JSON.stringify({ room: "chat:42", event: "message", data: { text: "Hello, page" } }),
    });
    assert.deepEqual((await called("show"))[0], { text: "Hello, page" });
    assert.ok(Date.now() - began < 300_000);
  }, { timeout: 300_000 });
});
