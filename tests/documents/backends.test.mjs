// The backend code of the documents, as it stands there, in its own language, asked by a node.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { after } from "node:test";
import { promisify } from "node:util";
import { SECRET } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { ROOT, assertAllRun, snippet } from "./snippets.mjs";

const PYTHON = path.join(ROOT, "tests/.venv/bin/python");
const GUIDE = "docs/guides/authorize-rooms.md";
const SERVER = "packages/server/README.md";

const rooms = [{ match: "user:{user}", join: "auto" }, { match: "conversation:<id>", join: "ask" }, { match: "chat:<id>", join: "ask" }];
const answer = { ack: [{ ok: true }], ack_error: [{ ok: false, error: "{error}" }] };
const on = [
  { event: "join_conversation", join: "conversation:{0}", ...answer },
  { event: "join_chat", join: "chat:{0}", ...answer },
  { event: "send_message", forward: true },
];

/** A folder below tests/, so that Node finds the packages; `files` are its files. */
function folder(s, files = {}) {
  const directory = fs.mkdtempSync(path.join(import.meta.dirname, ".documents-"));
  s.serve({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
  fs.mkdirSync(path.join(directory, "node_modules/@roomcast"), { recursive: true });
  fs.symlinkSync(path.join(ROOT, "packages/server"), path.join(directory, "node_modules/@roomcast/server"));
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(directory, name), text);
  return directory;
}

/** What `roomcast init` writes for the stack, in `directory`. */
async function init(stack, directory) {
  const { code, output } = await roomcast(["init", stack, "--dir", directory]);
  assert.equal(code, 0, output);
}

/** Starts a server and waits until it listens on `port`. */
async function serve(s, command, args, { port, directory, env }) {
  const child = spawn(command, args, { cwd: directory, env: { ...process.env, ROOMCAST_BACKEND__SECRET: SECRET, ...env } });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += chunk));
  const ended = new Promise((resolve) => child.once("close", resolve));
  s.serve({ close: () => (child.kill("SIGKILL"), ended) });
  await until(async () => fetch(`http://127.0.0.1:${port}/`).catch(() => null), () => `${command} listens: ${output}`, 30_000);
}

const nodeFor = (s, port) => s.node({ backend: { url: `http://127.0.0.1:${port}/roomcast`, secret: SECRET, notify: [] }, rooms, on });

/** User 7 is a member of 42 and not of 43; a request without a signature is refused. */
async function asks(s, port) {
  const node = await nodeFor(s, port);
  const client = await s.io(node, { auth: { token: tokenFor("7") } }).connected();
  assert.deepEqual(await client.ask("join_conversation", 42), [{ ok: true }]);
  assert.equal((await client.ask("join_conversation", 43))[0].ok, false);
  const forged = await fetch(`http://127.0.0.1:${port}/roomcast`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-roomcast-signature": `t=${Math.floor(Date.now() / 1000)},v1=${"0".repeat(64)}` },
    body: '{"type":"join","user":"7","room":"conversation:42"}',
  });
  assert.equal(forged.status, 401);
}

/** Listens with an Express application. */
async function listen(s, app, port = 0) {
  const server = app.listen(port, "127.0.0.1");
  s.serve({ close: () => (server.closeAllConnections(), server.close()) });
  await until(() => server.listening, "the backend listens");
  return server.address().port;
}

/** Runs a module in a process of its own, and resolves with the JSON that it prints. */
async function print(directory, name, node) {
  const env = { ...process.env, ROOMCAST_URL: node.url };
  const { stdout } = await promisify(execFile)(process.execPath, [path.join(directory, name)], { env });
  return JSON.parse(stdout);
}

const load = (directory, name) => import(pathToFileURL(path.join(directory, name)));
Object.assign(process.env, { ROOMCAST_BACKEND__SECRET: SECRET, ROOMCAST_PUBLISH__KEYS: KEY });

suite("the backend code of the documents", () => {
  after(() => assertAllRun("backends.test.mjs"));
  scenario(`${GUIDE}: Express`, async (s) => {
    const directory = folder(s, {
      "db.mjs": 'export const isMember = async (user, id) => user === "7" && id === "42";\n',
      "app.mjs": snippet(GUIDE, "js", "express()"),
    });
    await init("--express", directory);
    await asks(s, await listen(s, (await load(directory, "app.mjs")).app));
  });

  scenario(`${GUIDE}: FastAPI`, async (s) => {
    const directory = folder(s, {
      "db.py": 'async def is_member(user, id):\n    return user == "7" and id == "42"\n',
      "main.py": snippet(GUIDE, "py", "FastAPI()"),
    });
    await init("--fastapi", directory);
    const port = await freePort();
    await serve(s, PYTHON, ["-m", "uvicorn", "main:app", "--port", String(port)], { port, directory });
    await asks(s, port);
  });

  scenario(`${GUIDE}: PHP`, async (s) => {
    const directory = folder(s, {
      "db.php": "<?php\nfunction is_member($user, $id) { return $user === '7' && $id === '42'; }\n",
      "index.php": snippet(GUIDE, "php", "<?php"),
    });
    await init("--laravel", directory);
    const port = await freePort();
    await serve(s, "php", ["-S", `127.0.0.1:${port}`, "index.php"], { port, directory });
    await asks(s, port);
  });

  for (const has of ["createWebhook", "timingSafeEqual"]) {
    scenario(`docs/backend.md: ${has}`, async (s) => {
      const code = snippet("docs/backend.md", "js", has);
      const imports = code.match(/^import .*$/m) ?? [""];
      const directory = folder(s, {
        "app.mjs": `import crypto from "node:crypto"; import express from "express"; ${imports[0]}
          const SECRET = process.env.ROOMCAST_BACKEND__SECRET;
          const isMember = (user, room) => user === "7" && room === "conversation:42";
          const save = (call) => call.args[0];
          export const app = express();
          ${code.replace(imports[0], "")}`,
      });
      const port = await listen(s, (await load(directory, "app.mjs")).app);
      await asks(s, port);
      const client = await s.io(await nodeFor(s, port), { auth: { token: tokenFor("7") } }).connected();
      assert.deepEqual(await client.ask("send_message", "hi"), [{ success: true, message: "hi" }]);
    });
  }

  scenario(`${SERVER}: the handlers`, async (s) => {
    const directory = folder(s, {
      "webhook.mjs": `import { createWebhook } from "@roomcast/server";
        const isMember = (user, room) => room === "chat:42", save = async (id, user, chatId, text) => ({ user, chatId, text }), saw = () => {};
        ${snippet(SERVER, "js", "send_message: async")}`,
    });
    const { default: express } = await import("express");
    const port = await listen(s, express().use("/roomcast", (await load(directory, "webhook.mjs")).webhook.express));
    const client = await s.io(await nodeFor(s, port), { auth: { token: tokenFor("7") } }).connected();
    assert.deepEqual(await client.ask("join_chat", 42), [{ ok: true }]);
    assert.equal((await client.ask("join_chat", 43))[0].ok, false);
    assert.deepEqual(await client.ask("send_message", { chatId: 42, text: "hi" }), [{ ok: true, message: { user: "7", chatId: 42, text: "hi" } }]);
  });

  scenario(`${SERVER}: publish, command, ask`, async (s) => {
    const node = await s.node({ rooms: rooms.slice(0, 1), on: [] });
    const client = await s.io(node, { auth: { token: tokenFor("7") } }).connected();
    await s.io(node, { auth: { token: tokenFor("8") } }).connected();
    const directory = folder(s, {
      "calls.mjs": `${snippet(SERVER, "js", "publishAll").replace("await roomcast.publishAll", 'const events = [{ room: "user:7", event: "one" }, { room: "user:7", event: "two" }];\n$&')}
        console.log(JSON.stringify([users, seven.user, eight.user, eight.online]));`,
    });
    assert.deepEqual(await print(directory, "calls.mjs", node), [[], "7", "8", true]);
    await until(() => client.disconnects[0] === "io server disconnect", "the end of the revoked user's session");
    assert.deepEqual(client.events.map(({ name }) => name), ["typing", "one", "two"]);
  });

  scenario("docs/guides: publish from a backend of Pusher, and with fetch alone", async (s) => {
    const node = await s.node({ rooms: [{ match: "private-*", join: "allow" }, { match: "chat:<id>", join: "allow" }], on: [] });
    const listeners = await Promise.all(["private-orders-42", "chat:42"].map(async (room) => {
      const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
      await client.join(room);
      return client;
    }));
    const directory = folder(s, {
      "publish.mjs": `import { Roomcast } from "@roomcast/server";
        const roomcast = new Roomcast(), request = { body: { session: "nobody" } };
        ${snippet("docs/guides/from-pusher.md", "js", "roomcast.publish")}
        ${snippet("docs/guides/serverless.md", "js", "await fetch(")}
        console.log("null");`,
    });
    await print(directory, "publish.mjs", node);
    assert.deepEqual((await listeners[0].event("shipped")).data, { id: 42 });
    assert.deepEqual((await listeners[1].event("new_message")).data, { text: "hi" });
  });

  scenario(`${SERVER}: the outbox over PostgreSQL`, async (s) => {
    const { PGlite } = await import("@electric-sql/pglite");       // PostgreSQL itself, in this process
    const database = new PGlite();
    s.serve({ close: () => database.close() });
    await database.exec(snippet(SERVER, "sql", "CREATE TABLE"));
    const directory = folder(s, { "outbox_table.mjs": snippet(SERVER, "js", "pg_try_advisory_lock") });
    const { outboxTable } = await load(directory, "outbox_table.mjs");
    const { Outbox, Roomcast } = await import(pathToFileURL(path.join(ROOT, "packages/server/src/index.js")));
    const connection = { query: (...query) => database.query(...query), release() {} };
    const node = await s.node({ rooms: [{ match: "chat:<id>", join: "allow" }], on: [] });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    await client.join("chat:42");

    const outbox = new Outbox(new Roomcast({ url: node.url, key: KEY }), outboxTable({ ...connection, connect: async () => connection }));
    s.keep(outbox);
    await database.transaction(async (tx) => outbox.add(tx, { room: "chat:42", event: "saved", data: crypto.randomUUID() }));
    await database.transaction(async (tx) => {
      await outbox.add(tx, { room: "chat:42", event: "rolled_back" });
      await tx.rollback();
    });
    await outbox.drain();
    await client.event("saved");
    const { rows } = await database.query("SELECT count(*)::int AS left FROM roomcast_outbox");
    assert.deepEqual([rows[0].left, client.messages.filter(({ event }) => event === "rolled_back").length], [0, 0]);
  });
});
