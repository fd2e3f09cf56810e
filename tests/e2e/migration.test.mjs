// The steps of docs/from-socketio.md with their configuration, beside a real Socket.IO server with the Redis adapter.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { connectIo } from "../harness/clients.mjs";
import { startBackend } from "../harness/backend.mjs";
import { KEY, SECRET } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { startSocketIo } from "../harness/socketio_server.mjs";
import { tokenFor } from "../harness/token.mjs";

const guide = fs.readFileSync(new URL("../../docs/from-socketio.md", import.meta.url), "utf8");
const [beside, relay] = [...guide.matchAll(/```toml\n(.*?)```/gs)].map(([, text]) => text);

/** A node with this text as its configuration file; addresses come from the environment, which overrides the file. */
async function nodeWith(s, text, environment) {
  const port = await freePort();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-guide-"));
  s.serve({ close: () => fs.rmSync(directory, { recursive: true }) });
  const file = path.join(directory, "roomcast.toml");
  fs.writeFileSync(file, text);
  const env = { ROOMCAST_LISTEN: `127.0.0.1:${port}`, JWT_SECRET: SECRET, ROOMCAST_PUBLISH__KEYS: KEY, ...environment };
  return s.node({}, { file, port, env });
}

/** The server that a team has: handlers join rooms, and the server relays typing. */
async function oldApi(store, isMember) {
  const server = await startSocketIo(store.url);
  server.io.on("connection", (socket) => {
    socket.join(`user:${socket.handshake.auth.user}`);
    socket.on("join_conversation", (id, answer) => {
      const ok = isMember(socket.handshake.auth.user, `conversation:${id}`);
      if (ok) socket.join(`conversation:${id}`);
      answer({ ok });
    });
    socket.on("typing", (id) => socket.to(`conversation:${id}`).emit("user_typing", { userId: socket.handshake.auth.user }));
  });
  return server;
}

async function steps(s, store, old, isMember) {
  const backend = s.keep(await startBackend());
  backend.answer = (call) => {
    if (call.type === "join") return isMember(call.user, call.room) ? { allow: true } : { allow: false, error: "not a member" };
    // The snippet of step 2.
    if (call.event === "typing") old.io.to(`conversation:${call.args[0]}`).except(call.session).emit("user_typing", { userId: call.user });
    return {};
  };
  const environment = { REDIS_URL: store.url, ROOMCAST_BACKEND__URL: backend.url, ROOMCAST_BACKEND__NOTIFY: "" };
  const node = await nodeWith(s, beside, { ...environment, ROOMCAST_LOG__LEVEL: "info" });
  await until(async () => Number(await store.cli("PUBSUB", "NUMPAT")) >= 2, "both subscribed");

  const before = (user) => s.io({ url: old.url }, { auth: { user } }).connected();
  const after = (user) => s.keep(connectIo(node, { path: "/rt/", token: tokenFor(user) })).connected();
  const [ann, bob, eve] = [await before("1"), await after("2"), await after("9")];
  for (const client of [ann, bob]) assert.deepEqual(await client.ask("join_conversation", 42), [{ ok: true }]);
  assert.deepEqual(await eve.ask("join_conversation", 42), [{ ok: false, error: "not a member" }]);

  old.io.to("conversation:42").emit("new_message", { id: 1 });
  for (const client of [ann, bob]) assert.deepEqual(await client.event("new_message"), [{ id: 1 }]);
  old.io.to("user:2").emit("notice", 1);
  await bob.event("notice");
  ann.socket.emit("typing", 42);
  assert.deepEqual(await bob.event("user_typing"), [{ userId: "1" }]);
  bob.socket.emit("typing", 42);
  assert.deepEqual(await ann.event("user_typing"), [{ userId: "2" }]);
  old.io.in("user:2").socketsJoin("vip");
  old.io.to("vip").emit("vip");
  await bob.event("vip");
  old.io.to("user:9").emit("end");
  await eve.event("end");
  assert.deepEqual([bob.argsOf("user_typing").length, ann.argsOf("user_typing").length, eve.events.length], [1, 1, 1]);
  assert.equal((await old.io.fetchSockets()).length, 1);

  // Steps 3 and 4: `typing` by a rule, published over HTTP, on the old path.
  await node.stop();
  const start = beside.indexOf('[[on]]\nevent = "typing"');
  const rules = beside.slice(0, start) + relay + beside.slice(beside.indexOf("[backend]"));
  const alone = await nodeWith(s, rules.replace('path = "/rt/"', 'path = "/socket.io/"').replace(/emitter_key.*/, ""), environment);
  const [cat, dan] = await Promise.all(["1", "2"].map((user) => s.io(alone, { token: tokenFor(user) }).connected()));
  for (const client of [cat, dan]) assert.deepEqual(await client.ask("join_conversation", 42), [{ ok: true }]);
  cat.socket.emit("typing", 42);
  assert.deepEqual(await dan.event("user_typing"), [{ userId: "1" }]);
  await published(alone, { room: "conversation:42", event: "new_message", data: { id: 2 } });
  for (const client of [cat, dan]) assert.deepEqual(await client.event("new_message"), [{ id: 2 }]);
  assert.equal(cat.argsOf("user_typing").length, 0);
}

suite("docs/from-socketio.md", () => {
  scenario("a Socket.IO server and roomcast on one Redis serve each other's clients; then roomcast serves them alone", async (s) => {
    const isMember = (user, room) => room === "conversation:42" && user !== "9";
    const store = await s.redis();
    const old = await oldApi(store, isMember);
    try {
      await steps(s, store, old, isMember);
    } finally {
      await old.close();
    }
  });
});
