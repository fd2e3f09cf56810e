// `npm start` runs the whole example, and Ctrl-C ends it.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { BINARY, Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { EXAMPLE, SLOW } from "./stage.mjs";
import { Person } from "./person.mjs";

const BUILT_WITHIN = 150_000;

test("npm start builds the page and runs every part without configured secrets, each can be stopped alone, and Ctrl-C ends all of them", { timeout: 2 * BUILT_WITHIN }, async () => {
  const [port, roomcastPort] = [await freePort(), await freePort()];
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-chat-"));
  const environment = {
    PORT: String(port),
    ROOMCAST_PORT: String(roomcastPort),
    ROOMCAST_BIN: BINARY,
    DATABASE: path.join(directory, "chat.sqlite"),
  };
  const all = new Daemon([path.join(EXAMPLE, "start.mjs")], environment, process.execPath, { stdin: "pipe" });
  const browser = await startBrowser();
  try {
    const [, page] = await until(() => /Chat: +(http\S+)/.exec(all.stdout) ?? (all.exit && Promise.reject(new Error(all.output))), () => all.output, BUILT_WITHIN);
    const person = async (name) => new Person(name, await (await browser.newContext()).newPage());
    const [ann, bob] = [await person("Ann"), await person("Bob")];
    for (const each of [bob, ann]) await each.signIn(page);
    await bob.open(await ann.startWith("Bob"));
    await ann.say("hello");
    await bob.sees("hello");

    // Each part stops and starts alone, as the README says, and what was written meanwhile arrives once.
    const isDown = (which) => until(async () => (await request(`http://127.0.0.1:${which}/health`).catch(() => "down")) === "down", () => all.output, SLOW);
    const isUp = (which) => until(async () => (await request(`http://127.0.0.1:${which}/health`).catch(() => ({}))).status === 200, () => all.output, SLOW);
    for (const [name, gone, other] of [["roomcast", roomcastPort, port], ["backend", port, roomcastPort]]) {
      all.process.stdin.write(`${name}\n`);
      await isDown(gone);
      await until(() => all.output.includes(`${name} has stopped.`), () => all.output, SLOW);
      assert.equal((await request(`http://127.0.0.1:${other}/health`)).status, 200, `without ${name} the other goes on`);
      await ann.say(`while ${name} is away`);
      all.process.stdin.write(`${name}\n`);
      await isUp(gone);
    }
    for (const each of [ann, bob]) await each.badge("live", SLOW);
    for (const name of ["roomcast", "backend"]) {
      const text = `while ${name} is away`;
      const retry = ann.message(text).locator(".retry");
      await until(async () => {
        // It may become "failed" only now, and be gone before the click.
        if (await retry.count()) await retry.click({ timeout: 1000 }).catch(() => {});
        return (await bob.message(text).count()) > 0;
      }, `Bob seeing "${text}"`, SLOW);
    }
    assert.deepEqual(await bob.texts(), ["hello", "while roomcast is away", "while backend is away"]);
    // Ctrl-C while a part is away ends the rest.
    all.process.stdin.write("roomcast\n");
    await isDown(roomcastPort);

    assert.deepEqual(await all.stop("SIGINT", SLOW), { code: 0, signal: null });
    for (const left of [port, roomcastPort]) {
      await assert.rejects(request(`http://127.0.0.1:${left}/health`), /ECONNREFUSED/, `port ${left} is closed`);
    }
    all.assertNoPanic();
  } finally {
    await browser.close();
    // By Ctrl-C, or its parts would be left behind.
    if (!all.exit) await all.stop("SIGINT", SLOW).catch(() => {});
    fs.rmSync(directory, { recursive: true, force: true });
  }
});

test("a part that cannot start ends all parts, with a reason", { timeout: 2 * BUILT_WITHIN }, async () => {
  const environment = { PORT: String(await freePort()), ROOMCAST_PORT: String(await freePort()), ROOMCAST_BIN: "/nonexistent/roomcast", DATABASE: "/nonexistent/chat.sqlite" };
  const all = new Daemon([path.join(EXAMPLE, "start.mjs")], environment, process.execPath);
  const exit = await until(() => all.exit, () => all.output, BUILT_WITHIN);
  assert.equal(exit.code, 1);
  assert.match(all.output, /\[roomcast\] .*ENOENT/);
});
