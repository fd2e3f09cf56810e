// examples/nextjs by its one command: two people in a real browser, and roomcast that goes away and comes back.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { snippetsOf } from "../documents/snippets.mjs";
import { EXAMPLES, TIMEOUT, withExample } from "./stage.mjs";

const EXAMPLE = path.join(EXAMPLES, "nextjs");

test("examples/nextjs: npm start; a message reaches the other window, and a reload has it", { timeout: TIMEOUT }, () =>
  withExample("nextjs", process.execPath, ["start.mjs"], async (example, [ann, bob]) => {
    await example.members("chat:42", 2);
    await ann.say("hello");
    await bob.sees("Ann hello");
    await bob.say("hi Ann");
    await ann.sees("Bob hi Ann");
    await bob.page.reload();
    await bob.shows(["Ann hello", "Bob hi Ann"]);

    const answer = await fetch(`${example.url}/chats/42/messages`, { method: "POST", body: '{"text":"anonymous"}' });
    assert.equal(answer.status, 401);
    assert.equal((await fetch(`${example.url}/roomcast`, { method: "POST", body: "{}" })).status, 401);
  }));

test("docs/guides/serverless.md shows the files of the example", () => {
  const blocks = snippetsOf("docs/guides/serverless.md").filter(({ language }) => language.startsWith("ts"));
  assert.equal(blocks.length, 4);
  for (const { code } of blocks) {
    const [, name, text] = /^\/\/ (\S+)\n([^]*)$/.exec(code);
    assert.equal(text, fs.readFileSync(path.join(EXAMPLE, name), "utf8"), name);
  }
});
