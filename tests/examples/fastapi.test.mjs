// examples/fastapi by its one command: two people in a real browser over plain WebSockets, and a roomcast that is away for a while.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { until } from "../harness/deadline.mjs";
import { EXAMPLES, TIMEOUT, withExample } from "./stage.mjs";

test("examples/fastapi: ./start.sh; messages, typing, a reload", { timeout: TIMEOUT }, () =>
  withExample("fastapi", "bash", ["start.sh"], async (example, [ann, bob]) => {
    await example.members("chat:42", 2);
    // It is shown for two seconds after each key.
    const isTyping = async () => (await ann.page.getByLabel("Message", { exact: true }).press("x"), bob.page.getByText("Ann is typing").isVisible());
    await until(isTyping, "Bob sees that Ann is typing", 30_000);
    await ann.say("hello");
    await bob.sees("Ann hello");
    await bob.say("hi Ann");
    await ann.sees("Bob hi Ann");
    await bob.shows(["Ann hello", "Bob hi Ann"]);
    assert.equal((await fetch(`${example.url}/chats/42/messages`)).status, 401);
    assert.equal((await fetch(`${example.url}/roomcast`, { method: "POST", body: "{}" })).status, 401);
  }));

test("examples/fastapi/roomcast_backend.py is what roomcast init writes", () => {
  const read = (file) => fs.readFileSync(path.join(EXAMPLES, file), "utf8");
  assert.equal(read("fastapi/roomcast_backend.py"), read("../src/cli/init/fastapi.py"));
});
