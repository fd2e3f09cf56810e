// Socket.IO's own Admin UI: what the namespace /admin sends is what the real package sends, its stock page works in a browser,
// and nobody gets in without a key.
import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { startBrowser } from "../harness/browser.mjs";
import { configure, KEY, toml } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const captured = JSON.parse(fs.readFileSync(new URL("../vectors/admin_ui.json", import.meta.url)));
const WEBSOCKET = { transports: ["websocket"] };
const ON = { console: { admin_ui: true } };

const operator = (s, node, { password = KEY, ...options } = {}) =>
  s.io(node, { namespace: "/admin", auth: { username: "admin", password }, ...WEBSOCKET, ...options });
const user = (s, node, name = "7", options = WEBSOCKET) => s.io(node, { token: tokenFor(name), ...options }).connected();

/** The kinds of a value: the same for what the real package sent and for what roomcast sends. */
function shape(value, key) {
  if (Array.isArray(value)) return key === "rooms" ? "strings" : value.map((item) => shape(item));
  if (value === null || typeof value !== "object") return typeof value;
  if (key === "data" || key === "headers" || key === "query") return "an object";
  return Object.fromEntries(Object.entries(value).toSorted().map(([name, inner]) => [name, shape(inner, name)]));
}
const packets = (page, name) => page.argsOf(name);
const sockets = (page) => packets(page, "all_sockets").at(-1)?.[0];

suite("Admin UI", () => {
  scenario("sends what the real package sends", async (s) => {
    const node = await s.node(ON);
    const page = await operator(s, node).connected();
    await until(() => sockets(page), "all sockets");
    const client = await s.io(node, { token: tokenFor("7") }).connected();
    const has = (name, matches) => until(() => packets(page, name).find(matches), () => `${name}; got ${JSON.stringify(page.events).slice(0, 3000)}`);
    const id = client.socket.id;
    await has("socket_connected", ([socket]) => socket.id === id);
    page.socket.emit("join", "/", "room:1", id);
    await has("room_joined", (args) => args[1] === "room:1" && args[2] === id);
    client.socket.emit("say", "1", "a secret");
    await has("event_received", (args) => args[1] === id);
    await has("event_sent", (args) => args[1] === "room:1");
    page.socket.emit("emit", "/", id, "note", { a: [7] });
    assert.deepEqual(await client.event("note"), [{ a: [7] }]);
    page.socket.emit("leave", "/", "room:1", id);
    await has("room_left", (args) => args[1] === "room:1" && args[2] === id);
    page.socket.emit("_disconnect", "/", false, id);
    await has("socket_disconnected", (args) => args[1] === id);
    assert.equal(await client.disconnected(), "io server disconnect");

    const ours = (name) => packets(page, name)[0];
    assert.deepEqual(ours("event_received").slice(0, 3), ["/", id, ["say"]], "without its arguments");
    assert.deepEqual(ours("event_sent").slice(0, 3), ["/", "room:1", ["said", { receivers: 0 }]], "its sender does not get it");
    assert.ok(!JSON.stringify(page.events).includes("a secret"));
    assert.equal(ours("socket_disconnected")[2], "disconnected", "the reason of the metrics");
    for (const name of ["event_received", "event_sent"]) {
      const real = captured.development.find((packet) => packet[0] === name);
      const outside = ([namespace, socket, [event], at]) => shape([namespace, socket, event, at]);
      assert.deepEqual(outside(ours(name)), outside(real.slice(1)), name);
    }
    for (const name of ["session", "config", "socket_connected", "room_joined", "room_left", "socket_disconnected"]) {
      const real = captured.development.find((packet) => packet[0] === name);
      assert.deepEqual(shape(ours(name)), shape(real.slice(1)), name);
    }
    assert.deepEqual(ours("config"), captured.development.find(([name]) => name === "config").slice(1));
    const stats = captured.development.find(([name]) => name === "server_stats")[1];
    const [own] = await has("server_stats", ([own]) => own.aggregatedEvents.length);
    // Lists of any length.
    const one = ({ aggregatedEvents: [event], namespaces: [namespace], ...rest }) => ({ ...rest, event, namespace });
    assert.deepEqual(shape(one(own)), shape(one(stats)));
    const kinds = ["rawConnection", "rawDisconnection", "packetsIn", "packetsOut"];
    assert.ok(own.aggregatedEvents.every(({ type, timestamp }) => kinds.includes(type) && timestamp % 1000 === 0));
  });

  scenario("the transport of a socket, and the namespaces, as the page shows them", async (s) => {
    const node = await s.node({ ...ON, socketio: { namespaces: ["/", "/chat"] } });
    await s.io(node, { token: tokenFor("8"), namespace: "/chat", transports: ["polling"] }).connected();
    const client = s.io(node, { token: tokenFor("7"), transports: ["polling"], upgrade: false });
    await client.connected();
    const page = await operator(s, node).connected();
    const all = await until(() => sockets(page), "all sockets");
    assert.deepEqual(all.map(({ nsp, transport }) => [nsp, transport]).toSorted(), [["/", "polling"], ["/chat", "polling"]]);
    const socket = all.find(({ nsp }) => nsp === "/");
    assert.deepEqual([socket.id, socket.rooms, socket.data.user, socket.data.protocol], [client.socket.id, ["user:7"], "7", "socketio"]);
    assert.deepEqual([socket.handshake.headers, socket.handshake.query], [{}, {}], "no tokens");
    assert.ok(!JSON.stringify(page.events).includes(tokenFor("7")));
    const [stats] = await until(() => packets(page, "server_stats").at(-1), "stats");
    assert.deepEqual(stats.namespaces, [{ name: "/", socketsCount: 1 }, { name: "/chat", socketsCount: 1 }], "the page itself is no socket");
    assert.deepEqual([stats.clientsCount, stats.pollingClientsCount], [3, 2]);
    assert.equal(await node.metric("roomcast_sessions"), 2);
  });

  scenario("without a key nobody gets in, and guesses are limited", async (s) => {
    const node = await s.node(ON);
    const wrong = operator(s, node, { password: "wrong" });
    assert.equal((await wrong.refused()).message, captured.refused);
    for (const auth of [undefined, {}, { token: tokenFor("7") }, { sessionId: "x" }, { username: "admin", password: [KEY] }]) {
      assert.equal((await s.io(node, { namespace: "/admin", auth, ...WEBSOCKET }).refused()).message, captured.refused, JSON.stringify(auth));
    }
    await Promise.all(Array.from({ length: 9 }, () => operator(s, node, { password: "guess" }).refused()));
    assert.match((await operator(s, node).refused()).message, /too many wrong passwords/, "also the right one, for a minute");
    await node.metricIs('roomcast_refusals_total{reason="admin_ui"}', 16);
    assert.ok(!node.output.includes("guess") && !node.output.includes(KEY));
  });

  scenario("a page comes back with its session id, on every node", async (s) => {
    const nodes = await nodesOn(s, await s.redis(), 2, ON);
    const page = await operator(s, nodes[0]).connected();
    const [sessionId] = await page.event("session");
    const again = await s.io(nodes[1], { namespace: "/admin", auth: { sessionId }, ...WEBSOCKET }).connected();
    await until(() => sockets(again), "all sockets");
    assert.deepEqual(packets(again, "session"), []);
  });

  scenario("a page ends with its key, and does not come back by its session id", async (s) => {
    const node = await s.node({ ...ON, publish: { keys: [KEY, "another-e2e-key"] } });
    const [page, other] = await Promise.all([operator(s, node).connected(), operator(s, node, { password: "another-e2e-key" }).connected()]);
    const [sessionId] = await page.event("session");
    const file = path.join(node.directory, "roomcast.toml");
    fs.writeFileSync(file, toml({ listen: `127.0.0.1:${node.port}`, ...configure({ ...ON, publish: { keys: ["another-e2e-key"] } }) }));
    assert.equal((await command(node, "/reload")).status, 200);
    await page.disconnected();
    assert.equal((await s.io(node, { namespace: "/admin", auth: { sessionId }, ...WEBSOCKET }).refused()).message, captured.refused);
    const seen = packets(other, "server_stats").length;
    await until(() => packets(other, "server_stats").length > seen + 1, "the page of another key goes on");
    assert.deepEqual([other.connects, other.disconnects], [1, []]);
  });

  scenario("switched off it is a namespace like any other, and for a page nothing else is there", async (s) => {
    const [off, node] = await Promise.all([s.node(), s.node(ON)]);
    assert.equal((await operator(s, off).refused()).message, "Invalid namespace");
    const page = await operator(s, node).connected();
    const other = page.socket.io.socket("/", { auth: { token: tokenFor("7") } });
    const refusal = await new Promise((resolve) => (other.on("connect_error", resolve), other.connect()));
    assert.equal(refusal.message, "Invalid namespace");
    const client = await user(s, node);
    const second = client.socket.io.socket("/admin", { auth: { username: "", password: KEY } });
    const why = await new Promise((resolve) => (second.on("connect_error", resolve), second.connect()));
    assert.match(why.message, /connection of its own/);
    assert.ok(client.socket.connected);
  });

  scenario("shows only a bounded part, to a bounded number of pages, and readonly carries out nothing", async (s) => {
    const node = await s.node({ console: { admin_ui: true, admin_ui_sockets: 20, admin_ui_events: 5, admin_ui_sessions: 2, admin_ui_readonly: true } });
    const users = await Promise.all(Array.from({ length: 50 }, (_, n) => s.ws(node, { token: tokenFor(`u${n}`) }).welcomed()));
    const page = await operator(s, node).connected();
    const all = await until(() => sockets(page), "all sockets");
    assert.equal(all.length, 20);
    const [stats] = await until(() => packets(page, "server_stats").at(-1), "stats");
    assert.deepEqual([stats.clientsCount, stats.namespaces], [51, [{ name: "/", socketsCount: 50 }]], "the counts are of all");
    await node.says("console.admin_ui_sockets bounds it");
    await command(node, "/publish", { events: Array.from({ length: 100 }, (_, n) => ({ room: `user:u${n % 50}`, event: "n", data: n })) });
    await until(() => packets(page, "event_sent").length, "events");
    await until(() => packets(page, "server_stats").length > 2, "another look");
    const [shown, looks] = ["event_sent", "server_stats"].map((name) => packets(page, name).length);
    assert.ok(shown <= 10 * looks, `${shown} of 100 events in ${looks} looks`);
    assert.deepEqual(packets(page, "config"), captured.readonly.filter(([name]) => name === "config").map((packet) => packet.slice(1)));
    const acked = new Promise((resolve) => page.socket.emit("_disconnect", "/", true, undefined, resolve));
    await acked;
    await node.says("admin_ui_readonly is set");
    assert.ok(users.every((user) => !user.end));
    const second = await operator(s, node).connected();
    assert.match((await operator(s, node).refused()).message, /admin_ui_sessions/);
    second.close();
    await until(async () => {
      const third = operator(s, node);
      await until(() => third.socket.connected || third.errors[0], "an answer");
      return third.socket.connected;
    }, "the place of a page that has gone");
  });

  scenario("without sockets it is what the real package is in production", async (s) => {
    const node = await s.node({ console: { admin_ui: true, admin_ui_sockets: 0 } });
    await user(s, node);
    const page = await operator(s, node).connected();
    await until(() => packets(page, "server_stats").length > 1, "stats");
    assert.deepEqual([...new Set(page.events.map(({ name }) => name))].toSorted(), [...new Set(captured.production.map(([name]) => name))].toSorted());
    assert.deepEqual(packets(page, "config"), captured.production.filter(([name]) => name === "config").map((packet) => packet.slice(1)));
  });

  scenario("with admin_listen it is only there", async (s) => {
    const port = await freePort();
    const node = await s.node({ admin_listen: `127.0.0.1:${port}`, ...ON });
    assert.match((await operator(s, node).refused()).message, /served on admin_listen/);
    const apart = { url: `http://127.0.0.1:${port}` };
    for (const transports of [["websocket"], ["polling"], ["polling", "websocket"]]) {
      const page = await operator(s, apart, { transports }).connected();
      await until(() => sockets(page), "all sockets");
      await until(() => page.transport() === transports.at(-1), "its transport");
      page.close();
    }
    const client = s.io(apart, { token: tokenFor("7"), ...WEBSOCKET });
    assert.equal((await client.refused()).message, "Invalid namespace");
    await user(s, node);
  });

  scenario("a page whose requests come to two nodes goes on polling at the one it began on", async (s) => {
    const nodes = await nodesOn(s, await s.redis(), 2, ON);
    await user(s, nodes[1]);
    let next = 0;
    const balancer = http.createServer((request, response) => forward(request, response, nodes[next++ % 2]));
    balancer.on("upgrade", (request, socket) => socket.end("HTTP/1.1 502 Bad Gateway\r\n\r\n"));
    await new Promise((resolve) => balancer.listen(0, "127.0.0.1", resolve));
    s.serve({ close: () => (balancer.closeAllConnections(), balancer.close()) });
    const page = await operator(s, { url: `http://127.0.0.1:${balancer.address().port}` }, { transports: ["polling"] }).connected();
    await until(() => sockets(page)?.length === 1, "all sockets");
    const seen = await until(() => packets(page, "server_stats").length > 4 && packets(page, "server_stats"), "stats");
    assert.equal(new Set(seen.map(([{ serverId }]) => serverId)).size, 2);
  });
});

/** Passes a request on as it is. */
function forward(request, response, node) {
  const { method, url, headers } = request;
  const onward = http.request(node.url + url, { method, headers }, (answer) => {
    response.writeHead(answer.statusCode, answer.headers);
    answer.pipe(response);
  });
  onward.on("error", () => response.destroy());
  response.on("close", () => onward.destroy());
  request.pipe(onward);
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".png": "image/png" };

/** The stock page from the package, as anybody would serve it. */
async function servePage(s) {
  const root = path.join(import.meta.dirname, "../node_modules/@socket.io/admin-ui/ui/dist");
  const server = http.createServer((request, response) => {
    const file = path.join(root, path.normalize(request.url === "/" ? "/index.html" : request.url.split("?")[0]));
    if (!file.startsWith(root) || !fs.existsSync(file)) return response.writeHead(404).end();
    response.writeHead(200, { "content-type": TYPES[path.extname(file)] ?? "application/octet-stream" });
    fs.createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  s.serve({ close: () => (server.closeAllConnections(), server.close()) });
  return `http://localhost:${server.address().port}`;
}

suite("The stock page in a browser", () => {
  scenario("logs in, shows nodes, sockets and rooms of both nodes, and joins, leaves and disconnects", async (s) => {
    const origin = await servePage(s);
    const nodes = await nodesOn(s, await s.redis(), 2, { ...ON, cors: { origins: [origin] } });
    const here = await user(s, nodes[0], "7");
    const there = await user(s, nodes[1], "8");
    await there.join("room:shared");
    const [hereId, thereId] = [here.socket.id, there.socket.id];
    const browser = await startBrowser();
    s.serve({ close: () => browser.close().catch(() => {}) });
    const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    await page.goto(origin);
    const field = (label) => page.getByLabel(label, { exact: true });
    await field("Server URL").fill(nodes[0].url);
    await field("Username").fill("admin");
    await field("Password").fill("wrong");
    await page.getByRole("button", { name: "Connect" }).click();
    await page.getByText("Invalid credentials").waitFor();
    await field("Password").fill(KEY);
    await page.getByRole("button", { name: "Connect" }).click();
    const open = (name) => page.locator("nav").getByText(name, { exact: true }).click();
    const row = (text) => page.locator("tbody tr", { hasText: text });

    await open("Servers");
    await until(async () => (await page.locator("tbody .v-chip", { hasText: /^\s*healthy\s*$/i }).count()) === 2, "both nodes as servers");
    await open("Sockets");
    await row(hereId).waitFor();
    await row(thereId).waitFor();
    await open("Rooms");
    await row("room:shared").waitFor();
    await row("user:8").waitFor();

    // One socket joins a room, and leaves another.
    await open("Sockets");
    await row(thereId).click();
    await page.getByLabel("Join a room").fill("room:by-hand");
    await page.locator("main button[type=submit]").click();
    await row("room:by-hand").waitFor();
    await published(nodes[0], { room: "room:by-hand", event: "note", data: 1 });
    assert.deepEqual(await there.event("note"), [1]);
    await row("room:shared").getByRole("button").click();

    // A room is disconnected, then a socket. A click on a button also opens its row.
    await open("Rooms");
    await until(async () => (await row("room:shared").count()) === 0, "the room is left");
    await row("user:8").getByRole("button").last().click();
    assert.equal(await there.disconnected(), "io server disconnect");
    await open("Sockets");
    await until(async () => (await row(thereId).count()) === 0, "the socket is gone");
    await row(hereId).getByRole("button").click();
    assert.equal(await here.disconnected(), "io server disconnect");
    await open("Events");
    await row("by-hand").first().waitFor();
    await row("note").first().waitFor();
    await open("Dashboard");

    // The page comes back by its session id.
    await page.reload();
    await open("Servers");
    await until(async () => (await page.locator("tbody .v-chip", { hasText: /^\s*healthy\s*$/i }).count()) === 2, "both nodes as servers, again");
    assert.deepEqual(errors, []);
  });
});
