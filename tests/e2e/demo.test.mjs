// `roomcast demo`: a browser opens the printed page, and its two panes chat.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import { promisify } from "node:util";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

const run = promisify(execFile);

async function startDemo(keep, { port, options = [], env } = {}) {
  port ??= await freePort();
  const demo = new Daemon(["demo", "--listen", `127.0.0.1:${port}`, ...options], env);
  keep({ close: () => demo.exit ?? demo.signal("SIGKILL") });
  const printed = (pattern, what) =>
    until(() => pattern.exec(demo.stdout)?.[0] ?? (demo.exit && Promise.reject(new Error(`the demo ended: ${demo.output}`))), () => `${what} in: ${demo.output}`);
  const url = await printed(new RegExp(`http://[^\\s]*:${port}\\S*`), "the URL");
  const token = await printed(/eyJ[\w-]+\.[\w-]+\.[\w-]+/, "a token");
  const curl = await printed(/^\s*curl .*\n/m, "a curl command");
  return { demo, port, url, token, curl };
}

suite("demo", () => {
  scenario("it ends when its terminal is closed", async ({ keep }) => {
    for (const options of [[], ["--one-node"]]) {
      const { demo } = await startDemo(keep, { options });
      const { code } = await demo.stop("SIGHUP");
      assert.equal(code, 0, demo.output);
    }
  });

  scenario("the two panes chat, their badges follow the connection, and the printed curl command publishes", async ({ keep }) => {
    const { demo, url, curl } = await startDemo(keep);
    const browser = await startBrowser();
    keep({ close: () => browser.close().catch(() => {}) });
    const page = await browser.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    const elsewhere = [];
    page.on("request", (asked) => !/^(http|ws|data|blob)[^/]*(\/\/(127\.0\.0\.1|localhost)|:)/.test(asked.url()) && elsewhere.push(asked.url()));
    await page.goto(url);
    const pane = (name) => page.locator(`#pane-${name}`);
    const badge = (name, state) => pane(name).locator(`.badge[data-state=${state}]`).waitFor({ timeout: 30_000 });
    await Promise.all([badge("a", "live"), badge("b", "live")]);

    const say = async (name, text) => {
      await pane(name).locator("input.text").fill(text);
      await pane(name).locator("button.send").click();
    };
    const shows = (name, text) => pane(name).locator(".messages", { hasText: text }).waitFor({ timeout: 30_000 });
    await say("a", "hello from a <b>&amp;");
    await Promise.all([shows("a", "hello from a <b>&amp;"), shows("b", "hello from a <b>&amp;")]);
    await say("b", "hello from b");
    await Promise.all([shows("a", "hello from b"), shows("b", "hello from b")]);

    // It is shown for a moment only.
    await until(async () => {
      await pane("a").locator("input.text").press("t");
      return (await pane("b").locator(".typing").textContent())?.trim();
    }, "b sees a typing");
    await until(async () => (await pane("a").locator(".members").textContent()).trim(), "the members");

    const before = await pane("a").locator(".messages").textContent();
    const { stdout } = await run("sh", ["-c", curl]);
    assert.match(stdout, /"offset"/);
    await until(async () => (await pane("a").locator(".messages").textContent()).length > before.length, "the message of the curl command");
    await pane("a").locator(".toggle").click();
    await badge("a", "offline");
    await pane("a").locator(".toggle").click();
    await badge("a", "live");
    await say("b", "welcome back");
    await shows("a", "welcome back");
    assert.deepEqual(errors, []);
    assert.deepEqual(elsewhere, [], "no request to another host");

    await demo.stop();
    await Promise.all(["a", "b"].map((name) => pane(name).locator(".badge:not([data-state=live])").waitFor({ timeout: 30_000 })));
  });

  scenario("a tab of before recovers by itself when the demo is started again, with other secrets", async ({ keep }) => {
    const { demo, url, port, token } = await startDemo(keep);
    const browser = await startBrowser();
    keep({ close: () => browser.close().catch(() => {}) });
    const page = await browser.newPage();
    await page.goto(url);
    const badge = (name, state) => page.locator(`#pane-${name} .badge[data-state=${state}]`).waitFor({ timeout: 40_000 });
    await Promise.all([badge("a", "live"), badge("b", "live")]);
    const children = fs.readFileSync(`/proc/${demo.process.pid}/task/${demo.process.pid}/children`, "utf8").trim().split(" ");
    assert.equal(children.length, 4, "three nodes and a Redis");
    await demo.stop("SIGKILL");
    await until(() => children.every((pid) => !fs.existsSync(`/proc/${pid}`)), "nothing of a killed demo is left");
    await Promise.all([badge("a", "reconnecting"), badge("b", "reconnecting")]);
    const again = await startDemo(keep, { port });
    assert.notEqual(again.token, token);
    await Promise.all([badge("a", "live"), badge("b", "live")]);
    await page.locator("#pane-a input.text").fill("after the restart");
    await page.locator("#pane-a button.send").click();
    await page.locator("#pane-b .messages", { hasText: "after the restart" }).waitFor({ timeout: 30_000 });
    assert.doesNotMatch(await page.locator("#pane-a .messages").textContent(), /signature|reload/);
    await again.demo.stop();
  });

  scenario("a node is killed while 50 events are published: both panes go on, 50 received, 0 lost, 0 twice", async ({ keep }) => {
    const { url } = await startDemo(keep);
    const browser = await startBrowser();
    keep({ close: () => browser.close().catch(() => {}) });
    const page = await browser.newPage({ viewport: { width: 390, height: 844 }, colorScheme: "dark" });
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(url);
    for (const pane of ["a", "b"]) await page.locator(`#pane-${pane} .badge[data-state=live]`).waitFor();
    const graces = page.locator(".node", { hasText: "Grace" });
    await graces.waitFor();
    const number = await graces.locator("strong").textContent();
    const result = page.locator("#count .result");
    await page.getByRole("button", { name: "Publish 50 events" }).click();
    await until(async () => / [1-9]\d* received/.test(await result.textContent()), "the first events");
    await graces.getByRole("button").click();
    await page.locator(".node", { hasText: number }).getByText("killed, coming back").waitFor();
    const whole = ["Ada", "Grace"].map((name) => `${name}: 50 sent, 50 received, 0 lost, 0 twice`).join("\n");
    await until(async () => (await result.textContent()) === whole, async () => `${whole}; got ${await result.textContent()}`, 60_000);
    await page.locator("#pane-b .messages", { hasText: "Back, with everything that was said meanwhile." }).waitFor();
    await page.locator(".node", { hasText: number }).getByText("up", { exact: true }).waitFor({ timeout: 40_000 });
    await until(async () => `${await page.locator("#pane-a .members li").allTextContents()}` === "Ada (you),Grace", "both members");
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, "pixels that the page is too wide");
    await page.locator("#wire .frames .age", { hasText: "ms" }).first().waitFor();
    assert.deepEqual(errors, []);
  });

  scenario("one node on the log in memory, where redis-server is not installed", async ({ keep }) => {
    const { demo, url } = await startDemo(keep, { env: { PATH: "/nowhere" } });
    assert.match(demo.stdout, /one node \(with redis-server installed: on three/);
    const browser = await startBrowser();
    keep({ close: () => browser.close().catch(() => {}) });
    const page = await browser.newPage();
    await page.goto(url);
    await page.getByRole("button", { name: "Publish 50 events" }).click();
    const whole = ["Ada", "Grace"].map((name) => `${name}: 50 sent, 50 received, 0 lost, 0 twice`).join("\n");
    await until(async () => (await page.locator("#count .result").textContent()) === whole, whole, 60_000);
    assert.equal(await page.locator("#nodes").isVisible(), false);

    // The snippets of the page, as they are copied.
    for (const [language, program, ...flags] of [["curl", "bash", "-c"], ["Node", "node", "--input-type=module", "-e"], ["Python", "python3", "-c"]]) {
      await page.getByRole("tab", { name: language }).click();
      const { stdout } = await run(program, [...flags, await page.locator("#snippets code").textContent()]);
      assert.match(stdout, /offset/, language);
    }
    await page.getByRole("tab", { name: "PHP" }).click();
    const { stdout } = await run("php", ["-r", (await page.locator("#snippets code").textContent()).replace("<?php", "")]);
    assert.match(stdout, /offset/, "PHP");
    await until(async () => (await page.locator("#pane-a .message.outside").count()) === 4, "four messages of backends");
  });

  scenario("SIGINT ends the demo with exit code 0", async ({ keep }) => {
    const { demo } = await startDemo(keep);
    assert.equal((await demo.stop("SIGINT")).code, 0);
    demo.assertNoPanic();
  });
});
