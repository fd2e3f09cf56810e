// examples/php by its one command: two people in a real browser over Server-Sent Events.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { EXAMPLES, TIMEOUT, withExample } from "./stage.mjs";

test("examples/php: ./start.sh; messages reach the other window, a wrong name of a room is refused", { timeout: TIMEOUT }, () =>
  withExample("php", "bash", ["start.sh"], async (example, [ann, bob]) => {
    await example.members("chat:42", 2);
    await ann.say("hello");
    await bob.sees("Ann hello");
    await bob.say("hi Ann <b>");
    await ann.sees("Bob hi Ann <b>");
    await bob.shows(["Ann hello", "Bob hi Ann <b>"]);

    const signIn = await fetch(`${example.url}/session`, { method: "POST", body: '{"name":"Cem"}' });
    const { token } = await signIn.json();
    assert.equal((await fetch(`${example.roomcast}/sse?room=staff:1&token=${token}`)).status, 403);
    assert.equal((await fetch(`${example.url}/chats/42/messages`)).status, 401);
    assert.equal((await fetch(`${example.url}/roomcast`, { method: "POST", body: "{}" })).status, 401);
  }));

test("examples/php/app/Services/Roomcast.php is what roomcast init writes", () => {
  const read = (file) => fs.readFileSync(path.join(EXAMPLES, file), "utf8");
  assert.equal(read("php/app/Services/Roomcast.php"), read("../src/cli/init/laravel.php"));
});
