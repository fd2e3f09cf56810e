// StockENT: each requirement of its README, with its own roomcast.toml, backend and frontend options.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { startFrontend } from "../harness/frontend.mjs";
import { api } from "./service.mjs";
import { jwt, KEY, SECRETS, stage, total, TRANSPORTS, watch } from "./stage.mjs";
import { startBackend } from "./stockent/backend.mjs";
import { connect, ConversationPage } from "./stockent/client.mjs";

const FRONTEND = "https://stockent.example.com";
/** The frontend's own options, and each transport alone. */
const OPTIONS = { "as the frontend has it": {}, ...TRANSPORTS };
const [ANN, BOB, EVE] = [1, 2, 3];
const tokenOf = (id) => jwt(undefined, { id });

async function stockent(s, { env, ...more } = {}) {
  const start = ({ roomcastUrl }) => startBackend({ secrets: SECRETS, roomcastUrl, key: KEY });
  const system = await stage(s, "stockent", { start, env: { FRONTEND_URL: "", SOCKET_CORS_ORIGIN: FRONTEND, ...env }, ...more });
  system.backend.conversations.set(9, { id: 9, members: [ANN, BOB] });
  return system;
}

async function person(s, { roomcast, backend }, id, options) {
  const client = await watch(s, connect(roomcast.url, tokenOf(id), options)).connected();
  return { id, client, socket: client.socket, api: api(backend.url, tokenOf(id)), page: (conversation = 9) => new ConversationPage(client.socket, conversation) };
}

const people = (s, system, ids, options) => Promise.all(ids.map((id) => person(s, system, id, options)));
const rooms = ({ nodes }) => total(nodes, "roomcast_rooms");

suite("StockENT", () => {
  for (const [how, options] of Object.entries(OPTIONS)) {
    scenario(`message_received reaches the conversation, and new_message_notification only devices that do not view it: ${how}`, async (s) => {
      const system = await stockent(s);
      const [ann, bobViews, bobElsewhere, eve] = await people(s, system, [ANN, BOB, BOB, EVE], options);
      assert.deepEqual([await ann.page().mount(), await bobViews.page().mount()], [{ success: true }, { success: true }]);
      const message = await ann.api.post("/conversations/9/messages", { text: "is it still there?" });
      assert.deepEqual(await bobViews.client.event("message_received"), [message]);
      assert.deepEqual(await bobElsewhere.client.event("new_message_notification"), [{ conversationId: 9, preview: "is it still there?" }]);
      await published(system.nodes[0], { rooms: [ANN, BOB, EVE].map((id) => `user:${id}`), event: "end", data: 1 }, { key: KEY });
      const names = async ({ client }) => (await client.event("end"), client.events.map(({ name }) => name));
      assert.deepEqual(await Promise.all([ann, bobViews, bobElsewhere, eve].map(names)), [
        ["message_received", "end"], ["message_received", "end"], ["new_message_notification", "end"], ["end"],
      ]);
    });

    scenario(`a message sent by HTTP or by a socket event is saved and published in the same way: ${how}`, async (s) => {
      const system = await stockent(s);
      const [ann, bobViews, bobElsewhere] = await people(s, system, [ANN, BOB, BOB], options);
      const page = ann.page();
      await page.mount();
      await bobViews.page().mount();
      const byHttp = await ann.api.post("/conversations/9/messages", { text: "the same" });
      const { success, message: bySocket } = await page.send("the same");
      assert.equal(success, true);
      assert.deepEqual(system.backend.messages, [byHttp, bySocket]);
      assert.deepEqual({ ...bySocket, id: byHttp.id }, byHttp, "equal except for the id");
      for (const { client } of [ann, bobViews]) {
        await until(() => client.argsOf("message_received").length === 2, "both");
        assert.deepEqual(client.argsOf("message_received"), [[byHttp], [bySocket]]);
      }
      await until(() => bobElsewhere.client.argsOf("new_message_notification").length === 2, "both notifications");
      assert.deepEqual(await page.send(""), { success: false, error: "A message needs text" });
      assert.deepEqual(await ann.client.event("error"), [{ message: "A message needs text" }]);
      assert.equal(system.backend.messages.length, 2);
    });
  }

  scenario("user:{id} is joined automatically, and a stranger can neither join a conversation nor send to it", async (s) => {
    const system = await stockent(s);
    const [eve, ann] = await people(s, system, [EVE, ANN]);
    assert.deepEqual(await eve.page().mount(), { success: false, error: "You are not part of this conversation" });
    assert.deepEqual(await eve.client.event("error"), [{ message: "You are not part of this conversation" }]);
    assert.deepEqual(await eve.page().send("hi"), { success: false, error: "You are not part of this conversation" });
    await published(system.nodes[1], { room: "user:1", event: "own", data: 1 }, { key: KEY });
    await ann.client.event("own");
    assert.deepEqual(system.backend.messages, []);
  });

  scenario("conversation_created, message_deleted and conversation_deleted reach the participants once", async (s) => {
    const system = await stockent(s);
    const [ann, bob, eve] = await people(s, system, [ANN, BOB, EVE]);
    const created = await ann.api.post("/conversations", { with: EVE });
    for (const each of [ann, eve]) assert.deepEqual(await each.client.event("conversation_created"), [created]);
    const [mine, theirs] = [ann.page(), bob.page()];
    await mine.mount();
    await theirs.mount();
    await mine.send("oops");
    await mine.send("better");
    await until(() => theirs.messages.length === 2, "both");
    await ann.api.delete(`/conversations/9/messages/${theirs.messages[0].id}`);
    await until(() => theirs.messages.length === 1, "one is deleted");
    assert.equal(theirs.messages[0].text, "better");
    await bob.api.delete("/conversations/9");
    for (const each of [ann, bob]) assert.deepEqual(await each.client.event("conversation_deleted"), [{ conversationId: 9 }]);
    await published(system.nodes[0], { rooms: ["conversation:9"], event: "nobody", data: 1 }, { key: KEY });
    await published(system.nodes[0], { rooms: ["user:1", "user:2", "user:3"], event: "end", data: 1 }, { key: KEY });
    for (const each of [ann, bob, eve]) {
      await each.client.event("end");
      assert.deepEqual(each.client.argsOf("nobody"), [], "the room is empty");
      assert.equal(each.client.argsOf("conversation_deleted").length, each === eve ? 0 : 1, "once, though in two of the rooms");
    }
  });

  scenario("rooms: joined on view, left on navigation, and nothing is left behind after a disconnection", async (s) => {
    const system = await stockent(s, { env: { ROOMCAST_RECOVERY__WINDOW: "1s" } });
    const has = (count) => until(async () => (await rooms(system)) === count, async () => `${count} rooms, now ${await rooms(system)}`);
    await has(0);
    const ann = await person(s, system, ANN);
    const page = ann.page();
    await page.mount();
    await has(2);
    await page.unmount();
    await has(1);
    const bob = await person(s, system, BOB);
    await bob.page().mount();
    await page.mount();
    ann.socket.disconnect();
    bob.socket.io.reconnection(false);
    bob.socket.io.engine.transport.close();
    await has(0);
    await until(async () => (await total(system.nodes, "roomcast_sessions")) === 0, "no session left after the window");
    const left = async () => (await Promise.all((await system.redis.cli("--scan", "--pattern", "roomcast:*:sessions:*")).split("\n").filter(Boolean).map((key) => system.redis.cli("HKEYS", key)))).join("\n").split("\n").filter((field) => field && field !== "@");
    await until(async () => (await left()).length === 0, "no record left in Redis");
  });

  scenario("a browser connects withCredentials from SOCKET_CORS_ORIGIN, and is refused from other origins", async (s) => {
    const frontend = s.keep(await startFrontend());
    const system = await stockent(s, { env: { SOCKET_CORS_ORIGIN: `${FRONTEND},${frontend.origin}` } });
    const tried = (page, transports) => page.evaluate(async ({ url, token, transports }) => {
      const socket = io(url, { withCredentials: true, transports, auth: { token }, reconnection: false });
      const outcome = await new Promise((resolve) => {
        socket.on("connect", () => resolve("connected"));
        socket.on("connect_error", (error) => resolve(`refused: ${error.message}`));
      });
      const answer = outcome === "connected" && await socket.timeout(15_000).emitWithAck("join_conversation", { conversationId: 9 });
      socket.disconnect();
      return [outcome, answer?.success];
    }, { url: system.roomcast.url, token: tokenOf(ANN), transports });
    const own = await frontend.page();
    const foreign = await frontend.page({ foreign: true });
    for (const transports of [["websocket", "polling"], ["polling"], ["polling", "websocket"]]) {
      assert.deepEqual(await tried(own, transports), ["connected", true], `${transports}`);
      const [outcome] = await tried(foreign, transports);
      assert.match(outcome, /^refused/, `${transports}`);
    }
  });

  scenario("settings: SOCKET_CORS_ORIGIN, JWT_SECRET and REDIS_URL are used", async (s) => {
    const system = await stockent(s);
    const from = (origin, token) => watch(s, connect(system.roomcast.url, token, { extraHeaders: { origin }, reconnection: false }));
    await from(FRONTEND, tokenOf(ANN)).connected();
    await from("https://app.example.com", tokenOf(ANN)).refused();
    await from(FRONTEND, `${tokenOf(ANN)}x`).refused();
    assert.equal((await system.nodes[0].get("/health")).json().services.redis.status, "ready");
  });

  scenario("logs: connections, joins, leaves, events and errors can be traced by session, without payloads", async (s) => {
    const system = await stockent(s, { nodes: 1 });
    const [node] = system.nodes;
    await watch(s, connect(system.roomcast.url, `${tokenOf(ANN)}x`)).refused();
    const ann = await person(s, system, ANN);
    const id = ann.socket.id;
    const page = ann.page();
    await page.mount();
    await page.send("a payload that must not be logged");
    await until(() => page.messages.length, "the message");
    await page.send("");
    await ann.page(8).mount();
    await ann.client.ask("nonsense", 1);
    await page.unmount();
    ann.socket.disconnect();
    const steps = {
      "handshake refused": [/refused|unauthorized/, /token|signature|handshake/],
      connected: [id, /connected/],
      "joined the room": [id, /join/, "conversation:9"],
      "event in": [id, "send_message"],
      "event out": ["message_received", "conversation:9"],
      "event refused": [id, "send_message", /refused/],
      "join refused": [id, /refused/, /join/],
      "event without a rule": [id, "nonsense", /refused/],
      "left the room": [id, /left|leave/, "conversation:9"],
      disconnected: [id, /disconnect/],
    };
    const holds = (line, parts) => parts.every((part) => (part instanceof RegExp ? part.test(line) : line.includes(part)));
    const missing = () => {
      const lines = node.output.split("\n");
      let from = 0;
      return Object.entries(steps).filter(([, parts]) => {
        const at = lines.findIndex((line, index) => index >= from && holds(line, parts));
        if (at >= 0) from = at;
        return at < 0;
      }).map(([step]) => step);
    };
    await until(() => missing().length === 0, () => `not in the log, or not in this order: ${missing().join(", ")}`);
    for (const secret of ["a payload that must not be logged", tokenOf(ANN).split(".")[2], KEY, SECRETS.webhook]) assert.ok(!node.output.includes(secret), secret);
  });

  scenario("POST /disconnect of the API ends a user's connections", async (s) => {
    const system = await stockent(s);
    const [one, two, other] = await people(s, system, [ANN, ANN, BOB]);
    assert.deepEqual((await command(system.nodes[0], "/disconnect", { user: "1" }, { key: KEY })).json(), { sessions: 2 });
    for (const each of [one, two]) assert.equal(await each.client.disconnected(), "io server disconnect");
    assert.equal(other.socket.connected, true);
  });
});
