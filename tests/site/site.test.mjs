// The documentation as a static site: built from the pages as they stand, searched and read in a real Chromium.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { linked, pages } from "../../site/pages.mjs";

const ROOT = path.join(import.meta.dirname, "../..");
const DIST = path.join(ROOT, "site/dist");
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".woff2": "font/woff2" };

/** Every page below docs/, as the site names it. */
function documents() {
  const files = fs.readdirSync(path.join(ROOT, "docs"), { recursive: true }).filter((name) => name.endsWith(".md"));
  return files.map((name) => pages.rewrites[`docs/${name}`] ?? `docs/${name}`).map((name) => name.replace(/\.md$/, ""));
}

const SLOW = 30_000;
let server;
let browser;
before(async () => {
  // Fails at a link that leads nowhere.
  await promisify(execFile)("npm", ["run", "--silent", "build"], { cwd: path.join(ROOT, "site") });
  server = http.createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://site");
    const file = path.join(DIST, pathname.endsWith("/") ? `${pathname}index.html` : pathname);
    if (!fs.existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" }).end(fs.readFileSync(file));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});

async function open(pathname, options = {}) {
  const page = await browser.newPage(options);
  const errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("response", (answer) => answer.status() >= 400 && errors.push(`${answer.status()} ${answer.url()}`));
  await page.goto(`http://127.0.0.1:${server.address().port}${pathname}`, { waitUntil: "networkidle" });
  return { page, errors };
}

/** Opens the search. A page that is not interactive yet does nothing at a click. */
async function openSearch(page) {
  const [button, input] = [page.getByRole("button", { name: "Search" }).first(), page.locator("#localsearch-input")];
  await until(async () => {
    if (!(await input.isVisible())) await button.click({ timeout: 1000 }).catch(() => {});
    return input.isVisible();
  }, "the search", SLOW);
  return input;
}

test("every page of docs/ is on the site, and the sidebar leads to each but the decisions", () => {
  for (const name of documents()) assert.ok(fs.existsSync(path.join(DIST, `${name}.html`)), name);
  const listed = new Set(linked.map((link) => (link === "" || link.endsWith("/") ? `${link}index` : link)));
  for (const link of listed) assert.ok(fs.existsSync(path.join(DIST, `${link}.html`)), `the sidebar leads to ${link}`);
  const missing = documents().filter((name) => !listed.has(name) && !name.startsWith("docs/decisions/"));
  assert.deepEqual(missing, [], "pages that the sidebar does not have");
});

test("the search finds a page by a word in it", async () => {
  const { page, errors } = await open("/");
  await (await openSearch(page)).fill("rooms_claim");
  const results = page.locator("#localsearch-list a");
  await results.first().waitFor();
  let links = [];
  await until(async () => {
    links = await results.evaluateAll((found) => found.map((link) => link.getAttribute("href")));
    return links.some((link) => link.startsWith("/docs/rules.html"));
  }, () => `the page of rules in: ${links.join(" ")}`, SLOW);
  await results.first().click();
  await page.waitForURL(/\/docs\//);
  assert.deepEqual(errors, []);
  await page.close();
});

// What somebody with a task types, and the page that they need.
const TASKS = {
  authorize: "/docs/guides/authorize-rooms.html",
  "move from socket.io": "/docs/from-socketio.html",
  pusher: "/docs/guides/from-pusher.html",
  soketi: "/docs/guides/from-pusher.html",
  centrifugo: "/docs/guides/from-centrifugo.html",
  next: "/docs/guides/serverless.html",
  mobile: "/docs/guides/mobile.html",
  nothing: "/docs/troubleshooting.html",
};

test("the search finds the page for a task among its first answers", async () => {
  const { page } = await open("/");
  const input = await openSearch(page);
  const wrong = [];
  for (const [words, wanted] of Object.entries(TASKS)) {
    await input.fill(words);
    const links = () => page.locator("#localsearch-list a.result").evaluateAll((found) => found.slice(0, 6).map((link) => link.getAttribute("href")));
    const seen = () => links().then((found) => found.some((link) => link.startsWith(wanted)));
    if (!(await until(seen, words, SLOW).then(() => true, () => false))) wrong.push([words, await links()]);
  }
  assert.deepEqual(wrong, []);
  await page.close();
});

test("named code blocks are tabs, and other languages can be chosen", async () => {
  const { page, errors } = await open("/docs/guides/authorize-rooms.html");
  const group = page.locator(".vp-code-group").first();
  assert.deepEqual(await group.locator("label").allTextContents(), ["Express", "FastAPI", "PHP"]);
  assert.ok(await group.getByText("express", { exact: false }).first().isVisible());
  const shown = group.locator(".blocks > .active");
  // As for the search, the page may not be interactive yet.
  await until(async () => (await group.locator("label", { hasText: "FastAPI" }).click(), shown.getByText("include_router").isVisible()), "the tab", SLOW);
  assert.equal(await shown.count(), 1);
  assert.deepEqual(errors, []);
  await page.close();
});

test("a heading's anchor is the one that links on GitHub use", async () => {
  const { page } = await open("/docs/http-api.html#get-usersid-post-users");
  assert.equal(await page.locator("h2#get-usersid-post-users").count(), 1);
  await page.close();
});

test("it reads on a phone and in dark mode", async () => {
  for (const colorScheme of ["light", "dark"]) {
    const { page, errors } = await open("/docs/configuration.html", { viewport: { width: 390, height: 844 }, colorScheme });
    const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    // Its fonts may be drawn only now.
    await until(async () => (await overflow()) === 0, async () => `the page is ${await overflow()} pixels too wide`, SLOW);
    assert.equal(await page.evaluate(() => document.documentElement.classList.contains("dark")), colorScheme === "dark");
    assert.deepEqual(errors, []);
    await page.close();
  }
});
