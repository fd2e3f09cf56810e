// `roomcast dev`: a first message without a configuration, and refusals in words that name the fix.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { until } from "../harness/deadline.mjs";
import { BINARY, Daemon, roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

const run = promisify(execFile);
const folder = (keep) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-dev-"));
  keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
  return directory;
};

/** `roomcast dev` in `directory`, once it listens: its banner's URL, token and curl line. */
async function startDev(keep, directory, args = []) {
  const dev = new Daemon(["-c", `cd "$0" && exec "$@"`, directory, BINARY, "dev", ...args], {}, "sh");
  keep({ close: () => dev.exit ?? dev.signal("SIGKILL") });
  const printed = (pattern, what) =>
    until(() => pattern.exec(dev.stdout)?.[0] ?? (dev.exit && Promise.reject(new Error(`it ended: ${dev.output}`))), () => `${what} in: ${dev.output}`);
  const token = await printed(/eyJ[\w-]+\.[\w-]+\.[\w-]+/, "a token");
  const curl = (await printed(/curl .*\n/, "a curl line")).trim();
  const url = await printed(/http:\/\/127\.0\.0\.1:\d+/, "the URL");
  return { dev, token, curl, node: { url, socketUrl: url.replace("http", "ws") } };
}

const explained = (dev, ...parts) => until(() => parts.every((part) => dev.output.includes(part)), () => `${parts}; got ${dev.output}`);

suite("roomcast dev", () => {
  scenario("in an empty folder the printed token connects and the printed curl line publishes", async ({ keep, io }) => {
    const { dev, token, curl, node } = await startDev(keep, folder(keep));
    const client = await io(node, { token, extraHeaders: { origin: "http://localhost:5173" } }).connected();
    const { stdout } = await run("sh", ["-c", curl]);
    assert.match(stdout, /"offset"/);
    assert.deepEqual(await client.event("hello"), [{ text: "hi" }]);
    await explained(dev, "everybody may join every room");
    assert.equal((await dev.stop()).code, 0);
    dev.assertNoPanic();
  });

  scenario("what `init` wrote is used: the rules, and the secrets of .env, which are not printed", async ({ keep, io }) => {
    const directory = folder(keep);
    assert.equal((await roomcast(["init", "--dir", directory])).code, 0);
    const variables = fs.readFileSync(path.join(directory, ".env"), "utf8");
    // A backend's port is not roomcast's.
    fs.appendFileSync(path.join(directory, ".env"), "PORT=1\n");
    const { dev, token, curl, node } = await startDev(keep, directory, ["--listen", `127.0.0.1:${await freePort()}`]);
    const client = await io(node, { token }).connected();
    const { stdout } = await run("sh", ["-c", `set -a; . "${directory}/.env"; set +a; ${curl}`]);
    assert.match(stdout, /"offset"/);
    assert.deepEqual(await client.event("hello"), [{ text: "hi" }]);
    for (const line of variables.split("\n").filter((line) => /^[A-Z]/.test(line))) {
      assert.ok(!dev.output.includes(line.split("=")[1]), line.split("=")[0]);
    }
    await client.ask("join_chat", {});
    await explained(dev, 'event "join_chat": missing value {0.chatId}');
    assert.doesNotMatch(dev.output, /everybody may join/);
  });

  scenario("refusals are explained in words that name the fix, once, and then by their number", async ({ keep, io, ws }) => {
    const { dev, node, token } = await startDev(keep, folder(keep));
    await io(node, { token: "not.a.token" }).refused();
    await explained(dev, "refused (token)", "roomcast token --user 1");
    for (let times = 0; times < 10; times += 1) await ws(node, { token, origin: "https://evil.example" }).ended();
    await explained(dev, "origin https://evil.example is not in cors.origins", "-> add the page's origin to `cors.origins`", "(10 times by now)");
    assert.equal(dev.output.split("-> add the page's origin").length, 2, dev.output);
    const client = await io(node, { token }).connected();
    await client.ask("send_message");
    await explained(dev, 'no [[on]] rule has event "send_message"', "-> add an [[on]] rule for the event");
  });
});
