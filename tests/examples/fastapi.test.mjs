// examples/fastapi by its one command: two people in a real browser over plain WebSockets, and a roomcast that is away for a while.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { startBrowser } from "../harness/browser.mjs";
import { EXAMPLES, people, startExample } from "./stage.mjs";

test("examples/fastapi: ./start.sh; messages, typing, a reload", { timeout: 240_000 }, async () => {
  const example = await startExample("fastapi", "bash", ["start.sh"]);
  const browser = await startBrowser();
  try {
    const [ann, bob] = await people(browser, example);
    await example.members("chat:42", 2);
    await ann.page.getByLabel("Message", { exact: true }).pressSequentially("hel");
    await bob.page.getByText("Ann is typing").waitFor();
    await ann.say("hello");
    await bob.sees("Ann hello");
    await bob.say("hi Ann");
    await ann.sees("Bob hi Ann");
    await bob.shows(["Ann hello", "Bob hi Ann"]);
    assert.equal((await fetch(`${example.url}/chats/42/messages`)).status, 401);
    assert.equal((await fetch(`${example.url}/roomcast`, { method: "POST", body: "{}" })).status, 401);
  } finally {
    await browser.close();
    await example.stop();
  }
});

test("examples/fastapi/roomcast_backend.py is what roomcast init writes", () => {
  const read = (file) => fs.readFileSync(path.join(EXAMPLES, file), "utf8");
  assert.equal(read("fastapi/roomcast_backend.py"), read("../src/cli/init/fastapi.py"));
});
