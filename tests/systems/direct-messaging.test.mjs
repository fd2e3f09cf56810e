// Direct messaging: each requirement of its README, with its own roomcast.toml, backend and frontend options.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { badTokens } from "../harness/token.mjs";
import { startBackend } from "./direct-messaging/backend.mjs";
import { connect, Thread } from "./direct-messaging/client.mjs";
import { api, HttpError } from "./service.mjs";
import { jwt, KEY, SECRETS, stage, TRANSPORTS, watch } from "./stage.mjs";

const ID = "0197a7e2-52c1-7d10-9d0a-6f0d3f1f9a11";
/** Milliseconds: longer than any grace period and lease here. */
const OFFLINE_WITHIN = 30_000;

async function messenger(s, more) {
  const start = ({ roomcastUrl }) => startBackend({ secrets: SECRETS, roomcastUrl, key: KEY });
  const system = await stage(s, "direct-messaging", { start, ...more });
  system.backend.conversations.set(ID, ["ann", "bob"]).set("42", ["ann", "eve"]);
  return system;
}

async function person(s, { roomcast, backend }, user, options) {
  const token = jwt(user);
  const client = await watch(s, connect(roomcast.url, token, options)).connected();
  const rest = api(backend.url, token);
  return { user, client, socket: client.socket, api: rest, thread: (id = ID) => new Thread(client.socket, rest, id) };
}

const people = (s, system, users, options) => Promise.all(users.map((user) => person(s, system, user, options)));

suite("Direct messaging", () => {
  for (const [how, options] of Object.entries(TRANSPORTS)) {
    scenario(`auth: the REST API's JWT is accepted at the handshake, and bad tokens are refused: ${how}`, async (s) => {
      const system = await messenger(s);
      await person(s, system, "ann", options);
      const bad = badTokens();
      for (const token of [bad["of another secret"], bad["alg none"], jwt("ann", { exp: 1 }), undefined, "garbage"]) {
        const client = watch(s, connect(system.roomcast.url, token, options));
        const error = await client.refused();
        assert.ok(error.message.length > 3, "with a reason");
        assert.deepEqual([client.connects, client.socket.active], [0, false]);
      }
    });

    scenario(`new_message reaches the open conversation, and conversation_updated each device of the participants: ${how}`, async (s) => {
      const system = await messenger(s);
      const [ann, bob, eve] = await people(s, system, ["ann", "bob", "eve"], options);
      const annsPhone = await person(s, system, "ann", options);
      for (const each of [ann, bob]) assert.deepEqual(await each.client.ask("join_conversation", ID), [{ ok: true }]);
      const message = await ann.api.post(`/api/v1/conversations/${ID}/messages`, { clientId: "c1", text: "hi é" });
      for (const each of [ann, bob]) assert.deepEqual(await each.client.event("new_message"), [message]);
      for (const each of [ann, annsPhone, bob]) {
        assert.deepEqual(await each.client.event("conversation_updated"), [{ conversationId: ID, lastMessage: "hi é", mine: each.user === "ann" }]);
      }
      await published(system.nodes[0], { rooms: ["user:eve", "user:ann"], event: "end", data: 1 }, { key: KEY });
      await Promise.all([eve, annsPhone].map((each) => each.client.event("end")));
      assert.deepEqual(eve.client.events.map(({ name }) => name), ["end"], "a stranger gets nothing");
      assert.deepEqual(annsPhone.client.argsOf("new_message"), [], "nor does a device that has not opened the conversation");
    });
  }

  scenario("rooms: user:{userId} is joined automatically on all devices", async (s) => {
    const system = await messenger(s);
    const devices = await people(s, system, ["ann", "ann", "bob"]);
    await published(system.nodes[0], { room: "user:ann", event: "own", data: 1 }, { key: KEY });
    await published(system.nodes[1], { room: "user:bob", event: "own", data: 2 }, { key: KEY });
    assert.deepEqual(await Promise.all(devices.map((each) => each.client.event("own"))), [[1], [1], [2]]);
    for (const each of devices) assert.equal(each.client.events.length, 1);
  });

  scenario("join_conversation accepts an id as text or number, with or without an acknowledgement, and refuses strangers", async (s) => {
    const system = await messenger(s);
    const [ann, eve] = await people(s, system, ["ann", "eve"]);
    assert.deepEqual(await ann.client.ask("join_conversation", 42), [{ ok: true }]);
    eve.socket.emit("join_conversation", "42");
    assert.deepEqual(await eve.client.ask("join_conversation", ID), [{ ok: false, error: "not your conversation" }]);
    await eve.api.post("/api/v1/conversations/42/messages", { text: "both ids are one room" });
    await Promise.all([ann, eve].map((each) => each.client.event("new_message")));
    for (const id of ["", null, "a:b", "*", {}, [1]]) {
      const [answer] = await ann.client.ask("join_conversation", id);
      assert.equal(answer.ok, false, `${id}`);
    }
  });

  scenario("leave_conversation ends the events of the conversation", async (s) => {
    const system = await messenger(s);
    const [ann, bob] = await people(s, system, ["ann", "bob"]);
    for (const each of [ann, bob]) await each.client.ask("join_conversation", ID);
    assert.deepEqual(await bob.client.ask("leave_conversation", ID), [{ ok: true }]);
    await ann.api.post(`/api/v1/conversations/${ID}/messages`, { text: "gone" });
    await ann.client.event("new_message");
    await bob.client.event("conversation_updated");
    assert.deepEqual(bob.client.argsOf("new_message"), []);
  });

  scenario("a message sent by REST replaces the optimistic one and is shown once", async (s) => {
    const system = await messenger(s);
    const [ann, bob] = await people(s, system, ["ann", "bob"]);
    const [mine, theirs] = [ann.thread(), bob.thread()];
    await mine.open();
    await theirs.open();
    const sending = mine.send("hello");
    assert.deepEqual(mine.messages.map(({ text, pending }) => [text, pending]), [["hello", true]], "shown at once");
    await sending;
    await until(() => theirs.messages.length === 1 && ann.client.argsOf("new_message").length === 1, "shown to both");
    assert.deepEqual(mine.messages, theirs.messages);
    assert.deepEqual(mine.messages, system.backend.messages, "replaced by the saved message");
    for (let n = 0; n < 10; n += 1) mine.send(`n${n}`), theirs.send(`m${n}`);
    await until(() => [mine, theirs].every(({ messages }) => messages.length === 21 && messages.every(({ id }) => id)), "all replaced");
    await mine.send("");
    assert.match(mine.messages.at(-1).failed, /text is missing/);
    await assert.rejects(api(system.backend.url, jwt("eve")).post(`/api/v1/conversations/${ID}/messages`, { text: "x" }), HttpError);
    await mine.send("end");
    await until(() => theirs.messages.at(-1).text === "end", "the end");
    assert.equal(theirs.messages.length, 22, "the failed message was not published");
  });

  scenario("a read receipt is sent on open, and typing_start and typing_stop reach the others", async (s) => {
    const system = await messenger(s);
    const [ann, bob] = await people(s, system, ["ann", "bob"]);
    const [mine, theirs] = [ann.thread(), bob.thread()];
    await mine.open();
    await theirs.open();
    await until(() => mine.readBy.has("bob"), "bob has read");
    assert.match(system.backend.read.get(`${ID} bob`), /^\d{4}-/, "saved too");
    bob.socket.emit("typing_start", ID);
    await until(() => mine.typing.has("bob"), "bob typing");
    bob.socket.emit("typing_stop", ID);
    await until(() => !mine.typing.has("bob"), "bob no longer typing");
    assert.equal(theirs.typing.size, 0, "not to himself");
    const eve = await person(s, system, "eve");
    const refused = await eve.client.ask("typing_start", ID);
    assert.equal(refused[0].error.code, "not_in_room");
    await theirs.close();
    ann.socket.emit("typing_start", ID);
    await mine.send("end");
    await bob.client.event("conversation_updated");
    assert.deepEqual(bob.client.argsOf("typing_start"), []);
  });

  for (const [how, options] of Object.entries(TRANSPORTS)) {
    scenario(`presence: online at the first connection, offline with a last seen time after the last one, and the backend is notified of both: ${how}`, async (s) => {
      const system = await messenger(s, { env: { ROOMCAST_PRESENCE__GRACE: "5s" } });
      const ann = await person(s, system, "ann", options);
      const notified = () => system.backend.calls.filter(({ user, type }) => user === "bob" && ["online", "offline"].includes(type)).map(({ type }) => type);
      const presence = () => ann.api.get("/api/v1/users/bob/presence");
      const asked = async () => (await command(system.nodes[0], "/users", { users: ["bob"] }, { key: KEY })).json().users[0];
      assert.deepEqual(await presence(), { online: false, lastSeen: null });
      assert.deepEqual(await asked(), { user: "bob", online: false, connections: 0, last_seen: null });
      const [phone, laptop] = await people(s, system, ["bob", "bob"], { reconnectionDelay: 50, ...options });
      await until(async () => (await presence()).online, "online");
      await until(async () => (await asked()).connections === 2, "two connections, over both nodes");
      phone.socket.disconnect();
      laptop.socket.io.engine.close();
      await until(() => laptop.client.connects === 2, "the laptop connected again within the grace period");
      await until(async () => (await asked()).connections === 1, "one connection");
      assert.deepEqual(notified(), ["online"], "once, whatever the devices do");
      const before = Date.now();
      laptop.socket.disconnect();
      await until(async () => (await asked()).connections === 0, "no connection");
      const { lastSeen } = await until(async () => !(await presence()).online && presence(), "offline", OFFLINE_WITHIN);
      assert.match(lastSeen, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/);
      const { time: announced } = system.backend.calls.find(({ user, type }) => user === "bob" && type === "offline");
      // Redis has a clock of its own and rounds, so a second of the grace period has to do.
      const [late, grace] = [Date.parse(lastSeen) - before, Date.parse(announced) - Date.parse(lastSeen)];
      assert.ok(late >= -1000 && grace >= 1000, `when the last connection closed, not the end of the grace period: ${late} ms after it, ${grace} ms before the announcement`);
      assert.deepEqual(await asked(), { user: "bob", online: false, connections: 0, last_seen: lastSeen });
      await person(s, system, "bob", options);
      await until(async () => (await presence()).online, "online again");
      assert.deepEqual(notified(), ["online", "offline", "online"]);
    });
  }

  scenario("presence: users whose node is killed go offline, and are announced once", async (s) => {
    const system = await messenger(s, { env: { ROOMCAST_PRESENCE__GRACE: "300ms", ROOMCAST_PRESENCE__LEASE: "6s" } });
    const [a, b] = system.nodes;
    const presence = (user) => system.backend.presence.get(user)?.online;
    const on = async (node, user) => watch(s, connect(node.url, jwt(user), { reconnection: false })).connected();
    await on(a, "ann");
    await on(a, "bob");
    await on(b, "bob");
    await until(() => presence("ann") && presence("bob"), "both online");
    a.stopping = true;
    await a.stop("SIGKILL");
    await until(() => presence("ann") === false, "ann offline", OFFLINE_WITHIN);
    assert.equal(presence("bob"), true, "bob is on the other node");
    assert.equal(system.backend.calls.filter(({ type, user }) => type === "offline" && user === "ann").length, 1, "announced once");
  });
});
