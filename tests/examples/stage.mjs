// An example by its own command, on free ports, until the test ends it as Ctrl-C does.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { BINARY, Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { runAndEnd } from "../harness/scenario.mjs";

export const EXAMPLES = path.resolve(import.meta.dirname, "../../examples");
// It may install packages first.
const READY_WITHIN = 300_000;
const SLOW = 30_000;
/** Of a test with an example. */
export const TIMEOUT = 2 * READY_WITHIN;

/** Runs `command` in the folder of the example, and waits until it prints where its page is. */
async function startExample(name, command, args, env = {}) {
  const [port, roomcastPort] = [await freePort(), await freePort()];
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-example-"));
  const key = crypto.randomBytes(32).toString("base64url");
  const folder = path.join(EXAMPLES, name);
  const environment = { PORT: String(port), ROOMCAST_PORT: String(roomcastPort), ROOMCAST_BIN: BINARY, ROOMCAST_PUBLISH__KEYS: key, DATABASE: path.join(directory, "data"), ...env };
  const all = new Daemon(args.map((arg) => path.join(folder, arg)), environment, command);
  try {
    const failed = () => all.exit && Promise.reject(new Error(all.output));
    await until(() => /Chat: +(http\S+)/.exec(all.stdout) ?? failed(), () => all.output, READY_WITHIN);
  } catch (error) {
    // As Ctrl-C does, or its parts would be left behind.
    if (!all.exit) await all.stop("SIGINT", SLOW).catch(() => {});
    throw error;
  }
  const roomcast = `http://127.0.0.1:${roomcastPort}`;
  return {
    url: `http://localhost:${port}`,
    roomcast,
    key,
    output: () => all.output,
    /** Waits until so many connections are in the room. */
    members: (room, count) => until(async () => {
      const answer = await request(`${roomcast}/rooms/${encodeURIComponent(room)}`, { headers: { authorization: `Bearer ${key}` } });
      return answer.json().connections === count;
    }, () => `${count} connections in ${room}: ${all.output}`, SLOW),
    /** Ends it as Ctrl-C does: every part is gone afterwards. */
    async stop() {
      const { code } = all.exit ?? (await all.stop("SIGINT", SLOW));
      fs.rmSync(directory, { recursive: true, force: true });
      assert.equal(code, 0, all.output);
      for (const left of [port, roomcastPort]) await assert.rejects(request(`http://127.0.0.1:${left}/`), /ECONNREFUSED/, `port ${left} is closed`);
      all.assertNoPanic();
    },
  };
}

/** Calls `body` with the running example and with Ann and Bob, and ends everything. */
export async function withExample(name, command, args, body) {
  const example = await startExample(name, command, args);
  let browser;
  const end = async () => {
    await browser?.close();
    await example.stop();
  };
  await runAndEnd({ end, output: example.output }, async () => {
    browser = await startBrowser();
    await body(example, await people(browser, example));
  }, name);
}

/** Ann and Bob, signed in, each in a window of their own. */
function people(browser, { url }) {
  return Promise.all(["Ann", "Bob"].map(async (name) => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(url);
    await page.getByLabel("Your name").fill(name);
    await page.getByRole("button", { name: "Enter" }).click();
    await page.getByRole("heading", { name: "Chat 42" }).waitFor();
    const list = page.getByLabel("Messages");
    let shown;
    return {
      page,
      async say(text) {
        await page.getByLabel("Message", { exact: true }).fill(text);
        await page.getByRole("button", { name: "Send" }).click();
      },
      sees: (text) => list.locator("li", { hasText: text }).waitFor(),
      /** Waits until the window shows exactly these messages. */
      shows: (texts) => until(
        async () => JSON.stringify((shown = await list.locator("li").allTextContents())) === JSON.stringify(texts),
        () => `${name} sees ${JSON.stringify(shown)} instead of ${JSON.stringify(texts)}`,
        SLOW,
      ),
    };
  }));
}
