// The console in a real browser: an operator signs in, finds a session, and acts on it.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import axe from "axe-core";
import { RoundRobin } from "../harness/balancer.mjs";
import { startBrowser } from "../harness/browser.mjs";
import { makeCertificate } from "../harness/certificate.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { post, request } from "../harness/http.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const refused = (node, reason) => node.metric(`roomcast_refusals_total{reason="${reason}"}`);
const OWN = (node) => ({ "x-roomcast-console": "1", origin: node.url });
const DEADLINE = 30_000;

/** A browser whose pages fail the test on an error, a broken content policy, or a request to another host. */
async function open(keep, node, options = {}) {
  const browser = await startBrowser();
  const wrong = [];
  keep({ close: () => browser.close().catch(() => {}) });
  const context = await browser.newContext(options);
  context.setDefaultTimeout(DEADLINE);
  const page = await context.newPage();
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("console", (message) => /Content.Security|Trusted|violat/i.test(message.text()) && wrong.push(message.text()));
  page.on("request", (asked) => asked.url().startsWith(node.url) || wrong.push(asked.url()));
  await page.goto(`${node.url}/console`);
  return { page, context, clean: () => assert.deepEqual(wrong, []) };
}

async function signIn(page, key = KEY) {
  await page.getByLabel("Key", { exact: true }).fill(key);
  await page.getByRole("button", { name: "Sign in" }).click();
}

const shows = (page, text) => page.getByText(text).first().waitFor();
const agree = (page, action) => page.getByRole("dialog").getByRole("button", { name: action }).click();

/** The cookie that a key is given for. */
async function cookieOf(node, key = KEY, headers = OWN(node)) {
  const answer = await post(`${node.url}/console/session`, { key }, headers);
  return { ...answer, cookie: answer.headers["set-cookie"]?.[0].split(";")[0] };
}

suite("console", () => {
  scenario("an operator signs in, finds a session, revokes its user, and signs out", async ({ node, io, keep }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("7") }).connected();
    await io(one, { token: tokenFor("8") }).connected();
    const { page, context, clean } = await open(keep, one);

    await signIn(page, "not-the-key");
    await shows(page, "This key is not one of publish.keys");
    await until(async () => (await refused(one, "publish_key")) === 1, "the refusal to be counted");
    await signIn(page);
    await shows(page, "1 node ok");
    const [cookie] = await context.cookies();
    assert.deepEqual([cookie.httpOnly, cookie.sameSite, cookie.secure], [true, "Strict", false]);
    assert.ok(!(await page.evaluate(() => JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]))).includes(KEY));

    await page.getByRole("link", { name: "Sessions" }).click();
    await page.getByRole("table").getByText("8", { exact: true }).waitFor();
    await page.getByLabel("User").fill("7");
    await page.getByRole("link", { name: client.socket.id }).click();
    await shows(page, "user:7");
    await page.getByRole("button", { name: "Revoke the user…" }).click();
    await page.getByLabel("For").fill("1h");
    await agree(page, "Revoke");
    await shows(page, "Ended 1 session of 7");
    await shows(page, "This session has ended");
    await until(() => !client.socket.connected, "the client's end");
    await one.says(/an operator used the console.*revoke/);

    const copy = `${cookie.name}=${cookie.value}`;
    assert.equal((await one.get("/cluster", { cookie: copy, "x-roomcast-console": "1" })).status, 200);
    const asked = [];
    await page.route(/\/cluster$/, (route) => asked.push(route));
    await until(() => asked.length > 0, "a request that is on its way when the operator signs out");
    await page.getByRole("button", { name: "Sign out" }).click();
    await shows(page, "You are signed out");
    const late = page.waitForResponse((response) => response.url().endsWith("/cluster"));
    for (const route of asked) await route.continue();
    assert.equal((await late).status(), 401);
    await (await late).finished();
    await page.evaluate(() => fetch("health/live"));
    await shows(page, "You are signed out");
    assert.equal((await one.get("/cluster", { cookie: copy, "x-roomcast-console": "1" })).status, 401, "a copy of the cookie is over, too");
    clean();
  });

  scenario("a test event is published, a room is emptied, a node is drained", async ({ node, io, ws, keep }) => {
    const [one, two] = [await node(), await node()];
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    const { page, clean } = await open(keep, one);
    await signIn(page);
    await page.getByRole("link", { name: "Publish" }).click();
    await page.getByLabel("Room").fill("user:7");
    await page.getByLabel("Data").fill("{ not json");
    await page.getByRole("button", { name: "Publish" }).click();
    await shows(page, "The data is not JSON");
    await page.getByLabel("Data").fill('{"price":1.50}');
    await page.getByRole("button", { name: "Publish" }).click();
    await shows(page, "The log has it at offset");
    const event = await client.message((message) => message.type === "event");
    assert.deepEqual([event.event, event.data], ["test", { price: 1.5 }]);

    await page.getByRole("link", { name: "Rooms" }).click();
    await page.getByLabel("Name begins with").fill("user:");
    await page.getByRole("link", { name: "user:7" }).click();
    await page.getByRole("button", { name: "Disconnect all…" }).click();
    await agree(page, "Disconnect them");
    await shows(page, "Disconnected 1 session");
    await client.ended();

    await page.getByRole("link", { name: "Overview" }).click();
    await page.getByRole("button", { name: /^Drain node/ }).click();
    await page.getByLabel("Over").fill("0s");
    await agree(page, "Drain the node");
    await shows(page, "1 of 1 node draining");
    await until(async () => (await one.get("/health")).status === 503, "the node to drain");
    const wrong = await post(`${two.url}/drain`, { node: "00000000" }, { authorization: `Bearer ${KEY}` });
    assert.deepEqual([wrong.status, wrong.json().error.code], [409, "other_node"]);
    assert.equal((await two.get("/health")).status, 200);
    clean();
  });

  scenario("it explains an event, and follows a user live", async ({ node, ws, keep }) => {
    const one = await node();
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    const { page, clean } = await open(keep, one);
    await signIn(page);
    const nav = (name) => page.getByRole("navigation").getByRole("link", { name }).click();
    await nav("Publish");
    await page.getByLabel("Room").fill("user:7");
    await page.getByRole("button", { name: "Publish" }).click();
    await client.event("test");
    await until(async () => {
      const { sessions } = (await one.get("/explain?user=7&room=user:7", { authorization: `Bearer ${KEY}` })).json();
      return sessions[0].outbox_bytes === 0;
    }, "nothing that waits for the client");
    await page.getByRole("link", { name: "Explain it for a user" }).click();
    const verdict = async (user, code) => {
      await page.getByLabel("User").fill(user);
      await page.getByRole("button", { name: "Explain" }).click();
      await page.locator(".verdict .pill", { hasText: code }).waitFor();
    };
    await verdict("7", "delivered");
    await page.getByRole("link", { name: /^[\w-]{20}$/ }).waitFor();
    await verdict("8", "not connected");

    await nav("Trace");
    await page.getByLabel("User").fill("7");
    await page.getByRole("button", { name: "Start" }).click();
    await shows(page, "Waiting for something to happen");
    const lines = page.getByRole("list", { name: "Newest first" });
    await post(`${one.url}/publish`, { room: "user:7", event: "shipped", data: { secret: "a payload" } }, { authorization: `Bearer ${KEY}` });
    await lines.getByText("shipped").waitFor();
    client.send({ type: "join", room: "closed:1" });
    await lines.getByText("Refused").waitFor();
    client.close();
    await lines.getByText("Disconnected").waitFor();
    assert.ok(!(await lines.textContent()).includes("a payload"));
    await page.getByRole("button", { name: "Stop" }).click();
    await shows(page, "stopped");
    clean();
  });

  scenario("the configuration is read again, and a mistake is named", async ({ node, keep }) => {
    const one = await node();
    const file = path.join(one.directory, "roomcast.toml");
    const good = fs.readFileSync(file, "utf8");
    const { page, clean } = await open(keep, one);
    await signIn(page);
    await shows(page, "1 node ok");
    const reload = async () => {
      await page.getByRole("button", { name: "Reload configuration…" }).click();
      await agree(page, "Reload");
    };
    fs.writeFileSync(file, `${good}\n[recovery]\nwindows = "1m"\n`);
    await reload();
    await shows(page, "[recovery] windows: unknown key; did you mean `window`?");
    await page.getByRole("button", { name: "Cancel" }).click();
    fs.writeFileSync(file, good.replace(KEY, `${KEY}", "a-second-key-of-operators`));
    await reload();
    await shows(page, "In force: publish.keys");
    fs.writeFileSync(file, good.replace(KEY, "a-second-key-of-operators"));
    await reload();
    await shows(page, "Your session has ended");
    assert.equal((await cookieOf(one, "a-second-key-of-operators")).status, 200);
    clean();
  });

  for (const colorScheme of ["light", "dark"]) {
    scenario(`it fits a phone, by keyboard, in ${colorScheme} mode`, async ({ node, io, keep }) => {
      const one = await node();
      const long = `somebody-with-a-very-long-name-${"x".repeat(60)}@example.com`;
      const client = await io(one, { token: tokenFor(long, { rooms: [`room:${"a-long-name-".repeat(8)}`] }) }).connected();
      const { page, clean } = await open(keep, one, { viewport: { width: 390, height: 844 }, colorScheme, hasTouch: true });
      await page.locator("input#key:focus").waitFor();
      await page.keyboard.type(KEY);
      await page.keyboard.press("Enter");
      await shows(page, "1 node ok");
      const [, back] = await page.evaluate(() => [0, getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)]);
      assert.equal(back[0] > 128, colorScheme === "light", `the background is ${back}`);
      const views = ["", "rooms", "sessions", `session/${client.socket.id}`, `room/${encodeURIComponent(`user:${long}`)}`, "explain", "trace", "publish"];
      for (const view of views) {
        await page.evaluate((hash) => (location.hash = hash), `#/${view}`);
        await until(() => page.evaluate(() => document.querySelector("main h1") && !document.querySelector("main .loading")), `the view ${view}`);
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${view || "the overview"} is wider than the phone`);
        // What is pressed has a name, and every field a label.
        const unnamed = await page.evaluate(() =>
          [...document.querySelectorAll("button, a, input:not([hidden]), textarea, select")]
            .filter((part) => !(part.textContent.trim() || part.ariaLabel || part.labels?.length))
            .map((part) => part.outerHTML));
        assert.deepEqual(unnamed, [], view);
      }
      clean();
    });
  }

  for (const colorScheme of ["light", "dark"]) {
    scenario(`axe finds nothing that keeps people out, in ${colorScheme} mode`, async ({ node, io, keep }) => {
      const one = await node();
      const client = await io(one, { token: tokenFor("7", { rooms: ["room:a"] }) }).connected();
      // axe writes into the page, which its policy forbids.
      const { page } = await open(keep, one, { colorScheme, bypassCSP: true });
      const faults = async () => {
        await page.evaluate(axe.source);
        const { violations } = await page.evaluate(() => window.axe.run());
        return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
      };
      await page.getByLabel("Key", { exact: true }).waitFor();
      assert.deepEqual(await faults(), [], "the sign-in");
      await signIn(page);
      await shows(page, "1 node ok");
      for (const view of ["", "rooms", "sessions", `session/${client.socket.id}`, "room/room%3Aa", "explain", "trace", "publish", "rooms?prefix=none"]) {
        await page.evaluate((hash) => (location.hash = hash), `#/${view}`);
        await until(() => page.evaluate(() => document.querySelector("main h1") && !document.querySelector("main .loading")), `the view ${view}`);
        assert.deepEqual(await faults(), [], view || "the overview");
      }
      await page.evaluate(() => (location.hash = "#/"));
      await page.getByRole("button", { name: /^Drain node/ }).click();
      await page.getByRole("dialog").waitFor();
      assert.deepEqual(await faults(), [], "the question");
      await page.keyboard.press("Escape");
      await page.getByRole("dialog").waitFor({ state: "detached" });
    });
  }

  scenario("two nodes behind a load balancer are one console", async ({ redis, node, io, proxy, keep }) => {
    const { url } = await redis();
    const [one, two] = [await node({ redis: { url } }), await node({ redis: { url } })];
    const clients = await Promise.all([one, two].map((at, number) => io(at, { token: tokenFor(`u${number}`) }).connected()));
    const balancer = await proxy(one);
    balancer.balancer = new RoundRobin([one, two]);
    const { page, context, clean } = await open(keep, balancer);
    await signIn(page);
    await shows(page, "2 nodes ok");
    await page.getByRole("link", { name: "Sessions" }).click();
    for (const { socket } of clients) await page.getByRole("link", { name: socket.id }).waitFor();
    const cookies = (await context.cookies()).map(({ name, value }) => `${name}=${value}`).join("; ");
    const looks = () => Promise.all([one, two].map(async (at) => (await at.get("/cluster", { cookie: cookies, "x-roomcast-console": "1" })).status));
    assert.deepEqual(await looks(), [200, 200]);
    await page.getByRole("button", { name: "Sign out" }).click();
    await shows(page, "You are signed out");
    await until(async () => (await looks()).every((status) => status === 401), "both nodes to know of it");
    const later = await node({ redis: { url } });
    assert.equal((await later.get("/cluster", { cookie: cookies, "x-roomcast-console": "1" })).status, 401, "a node that starts later");
    clean();
  });

  scenario("a node that goes away is shown as such, and the page goes on with the next", async ({ node, keep }) => {
    const one = await node();
    const { page, clean } = await open(keep, one);
    await signIn(page);
    await shows(page, "1 node ok");
    await one.stop();
    await shows(page, "Not up to date.");
    await shows(page, "No answer");
    await page.getByRole("table", { name: "Nodes" }).waitFor();
    await node({}, { port: one.port });
    await shows(page, "1 node ok");
    await page.getByText("Not up to date.").waitFor({ state: "detached" });
    clean();
  });

  scenario("by TLS the cookie never travels in the clear", async ({ node, keep }) => {
    const one = await node({ tls: makeCertificate() });
    const { page, context, clean } = await open(keep, one, { ignoreHTTPSErrors: true });
    await signIn(page);
    await shows(page, "1 node ok");
    const cookies = (await context.cookies()).map(({ name, secure, httpOnly, sameSite }) => ({ name, secure, httpOnly, sameSite }));
    assert.deepEqual(cookies, [{ name: "__Host-roomcast-console", secure: true, httpOnly: true, sameSite: "Strict" }]);
    clean();
  });

  scenario("a request that another page may have sent is refused, with whatever cookie", async ({ node }) => {
    const one = await node({ cors: { origins: ["https://app.example.com"] } });
    const { cookie, headers } = await cookieOf(one);
    assert.match(headers["set-cookie"][0], /^roomcast-console=[^;]+; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/);
    const drop = (more) => post(`${one.url}/disconnect`, { user: "7" }, { cookie, ...more });
    assert.equal((await drop(OWN(one))).status, 200);
    const foreign = [
      { origin: one.url },
      { "x-roomcast-console": "1" },
      { "x-roomcast-console": "1", origin: "https://app.example.com" },
      { "x-roomcast-console": "1", origin: "null" },
      { ...OWN(one), "sec-fetch-site": "same-site" },
      { ...OWN(one), "sec-fetch-site": "cross-site" },
    ];
    for (const headers of foreign) {
      const answer = await drop(headers);
      assert.deepEqual([answer.status, answer.json().error.code], [403, "cross_site"], JSON.stringify(headers));
    }
    assert.equal((await one.get("/cluster", { cookie })).status, 403, "also to look");
    await until(async () => (await refused(one, "cross_site")) === foreign.length + 1, "the refusals to be counted");
    const signIn = await cookieOf(one, KEY, { "x-roomcast-console": "1", origin: "https://app.example.com" });
    assert.equal(signIn.status, 403, "nobody is signed in by another page");
    const preflight = await request(`${one.url}/disconnect`, { method: "OPTIONS", headers: { origin: "https://app.example.com", "access-control-request-method": "POST" } });
    assert.equal(preflight.headers["access-control-allow-origin"], undefined);
  });

  scenario("a page of another site cannot act with the cookie of a signed-in operator", async ({ node, keep }) => {
    const [one, two] = [await node(), await node()];
    const { page } = await open(keep, one);
    await signIn(page);
    await shows(page, "1 node ok");
    // Another port is another origin, of the same site: the browser adds the cookie.
    await page.goto(`${two.url}/health`);
    const outcome = await page.evaluate(async (url) => {
      const body = JSON.stringify({ user: "7" });
      const simple = await fetch(`${url}/disconnect`, { method: "POST", mode: "no-cors", credentials: "include", body }).then((answer) => answer.type, String);
      const own = await fetch(`${url}/disconnect`, { method: "POST", credentials: "include", headers: { "X-Roomcast-Console": "1" }, body }).then((answer) => answer.status, () => "refused");
      return { simple, own };
    }, one.url);
    assert.deepEqual(outcome, { simple: "opaque", own: "refused" });
    await until(async () => (await refused(one, "cross_site")) === 1, "the refusal to be counted");
  });

  scenario("keys cannot be tried without end, and a session ends with its key", async ({ node }) => {
    const one = await node({ console: { sign_ins_per_minute: 3 } });
    const tries = [];
    for (let number = 0; number < 5; number += 1) tries.push((await cookieOf(one, "wrong")).status);
    assert.deepEqual(tries, [401, 401, 401, 429, 429]);
    assert.equal((await cookieOf(one)).headers["retry-after"] > 0, true);
    await until(async () => `${[await refused(one, "publish_key"), await refused(one, "sign_in")]}` === "3,3", "the refusals to be counted");
    await one.says(/refused: too many keys were tried.*sign_ins_per_minute/);

    const [two, three] = [await node({ publish: { keys: ["a-first-key-of-operators", KEY] } }), await node({ publish: { keys: [KEY] } })];
    const looks = async (at, cookie) => (await at.get("/cluster", { cookie, "x-roomcast-console": "1" })).status;
    const { cookie } = await cookieOf(two);
    const { cookie: ofFirst } = await cookieOf(two, "a-first-key-of-operators");
    assert.deepEqual([await looks(two, cookie), await looks(three, cookie)], [200, 200], "any node with the key");
    assert.deepEqual([await looks(two, ofFirst), await looks(three, ofFirst)], [200, 401]);
    assert.equal(await looks(two, `${cookie}x`), 401);
    const none = await node({ publish: { keys: [] } });
    assert.equal((await cookieOf(none)).status, 403);
  });

  scenario("the page is small, cached and locked down; it can be turned off, and moves to admin_listen", async ({ node }) => {
    const one = await node();
    for (const path of ["/console", "/console/app.js", "/console/app.css", "/console/icon.svg"]) {
      const first = await one.get(path, { "accept-encoding": "gzip" });
      assert.deepEqual([first.status, first.headers["content-encoding"], first.headers["x-content-type-options"]], [200, "gzip", "nosniff"], path);
      assert.match(first.headers["content-security-policy"], /default-src 'none'; script-src 'self'.*frame-ancestors 'none'/);
      assert.doesNotMatch(first.headers["content-security-policy"], /unsafe/);
      assert.equal((await one.get(path, { "if-none-match": first.headers.etag })).status, 304);
      assert.equal((await one.get(path)).headers["content-encoding"], undefined);
    }
    assert.deepEqual([(await one.get("/console/")).status, (await one.get("/console/x")).status], [308, 404]);
    const secure = await cookieOf(one, KEY, { "x-roomcast-console": "1", origin: `https://127.0.0.1:${one.port}` });
    assert.match(secure.headers["set-cookie"][0], /^__Host-roomcast-console=.*; Secure$/);
    const adminPort = await freePort();
    const apart = await node({ admin_listen: `127.0.0.1:${adminPort}` });
    assert.deepEqual([(await apart.get("/console")).status, (await request(`http://127.0.0.1:${adminPort}/console`)).status], [404, 200]);
    const off = await node({ console: { enabled: false } });
    const { cookie } = await cookieOf(one);
    assert.deepEqual([(await off.get("/console")).status, (await off.get("/cluster", { cookie, "x-roomcast-console": "1" })).status], [404, 401]);
  });
});
