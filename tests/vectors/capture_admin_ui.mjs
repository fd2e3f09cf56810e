// Runs the real @socket.io/admin-ui on a real Socket.IO server and writes what a page gets from it to admin_ui.json, which
// ../e2e/admin_ui.test.mjs compares with what roomcast sends. Run again after raising a version: node capture_admin_ui.mjs.
// What differs from run to run is written as its kind: "ID", "TIME", 0. One packet a line, so that a change shows as one.
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { instrument } from "@socket.io/admin-ui";
import { Server } from "socket.io";
import { io as connect } from "socket.io-client";

const { devDependencies: versions } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url)));
// bcrypt of "changeit".
const PASSWORD = "$2b$04$D7tQqgYBKlG/vtSKYiQSnu9.ADcLgoQ4dofxWUOJvboRqP/qk0wby";
const once = (socket, event) => new Promise((resolve) => socket.once(event, resolve));

/** A value with its kind instead of what changes. */
function steady(value, key) {
  if (Array.isArray(value)) return value.map((item) => steady(item));
  if (value && typeof value === "object") {
    if (key === "headers" || key === "query") return {};
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, steady(inner, name)]));
  }
  if (typeof value === "number") return 0;
  if (typeof value !== "string") return value;
  if (key === "time" || /^\d{4}-\d\d-\d\dT/.test(value)) return "TIME";
  if (key === "clientId" || /^[\w-]{20}$/.test(value) || /^[0-9a-f]{16}$/.test(value)) return "ID";
  return ["hostname", "address", "url"].includes(key) ? key.toUpperCase() : value;
}

/** What a page gets while a client comes, joins, gets an event, leaves and is disconnected. */
async function capture(options) {
  const http = createServer();
  const server = new Server(http);
  instrument(server, { auth: { type: "basic", username: "admin", password: PASSWORD }, serverId: "SERVER", ...options });
  server.on("connection", (socket) => socket.on("hello", (_, done) => (socket.emit("welcome", 1), done())));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${http.address().port}`;
  const packets = [];
  const wrong = connect(`${url}/admin`, { forceNew: true, reconnection: false, auth: { username: "admin", password: "wrong" } });
  const refused = (await once(wrong, "connect_error")).message;
  const page = connect(`${url}/admin`, { forceNew: true, transports: ["websocket"], auth: { username: "admin", password: "changeit" } });
  page.onAny((...packet) => packets.push(packet));
  const next = (name) => new Promise((resolve) => page.on(name, resolve));
  await once(page, "connect");
  const client = connect(url, { forceNew: true });
  await Promise.all([once(client, "connect"), once(client.io.engine, "upgrade")]);
  await client.emitWithAck("hello", { a: 1 });
  const sees = options.mode === "development";
  const steps = [["join", "room_joined", "/", "room", client.id], ["leave", "room_left", "/", "room", client.id], ["_disconnect", "socket_disconnected", "/", false, client.id]];
  for (const [command, seen, ...args] of options.readonly ? [] : steps) {
    const done = Promise.all([sees && next(seen), command === "_disconnect" && once(client, "disconnect")]);
    page.emit(command, ...args);
    await done;
  }
  await next("server_stats");
  for (const socket of [wrong, page, client]) socket.disconnect();
  server.close();
  return { refused, packets: packets.map((packet) => steady(packet)) };
}

const lines = (packets) => `[\n    ${packets.map((packet) => JSON.stringify(packet)).join(",\n    ")}\n  ]`;
const modes = { development: { mode: "development" }, production: { mode: "production" }, readonly: { mode: "development", readonly: true } };
const captured = [];
for (const [name, options] of Object.entries(modes)) captured.push([name, await capture(options)]);
const text = captured.map(([name, { packets }]) => `  "${name}": ${lines(packets)}`).join(",\n");
const head = `{\n  "version": "${versions["@socket.io/admin-ui"]}",\n  "refused": ${JSON.stringify(captured[0][1].refused)},\n`;
writeFileSync(new URL("admin_ui.json", import.meta.url), `${head}${text}\n}\n`);
process.exit(0);
