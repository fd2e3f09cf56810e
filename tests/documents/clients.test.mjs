// The client code of the documents, as it stands there, in a real Chromium against a node.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, before, test } from "node:test";
import { KEY, SECRET } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { startPages } from "./page.mjs";
import { ROOT, assertAllRun, snippet } from "./snippets.mjs";

const OK = { ack: [{ ok: true }], ack_error: [{ ok: false, error: "{error}" }] };
const rooms = ["conversation:<id>", "chat:<id>", "lobby:<id>", "news", "private-*"].map((match) => ({ match, join: "allow" }));
const on = [
  { event: "join_conversation", join: "conversation:{0}", ...OK },
  { event: "join", join: "chat:{0}", ...OK },
  { event: "join_chat", join: "chat:{0.chatId}", ack: [{ success: true }] },
  { event: "subscribe", join: "{0}", ...OK },
  { event: "echo", ack: ["{args}"] },
];
const io = 'import { io } from "socket.io-client";\n';
const connecting = `${io}const socket = io("https://app.example.com", { auth: (done) => done({ token: currentToken() }) });\n`;

/**
 * `has`: a text of the block. `before`: what the reader has above it. An event is published to `room` and has to reach
 * the application's function `shown` (or, without one, the console).
 */
const LISTENERS = [
  { page: "README.md", has: "join_chat", room: "chat:42", event: "message", shown: "show" },
  { page: "docs/clients.md", has: "connect_error", room: "conversation:42", event: "new_message", shown: "show" },
  { page: "docs/clients.md", has: "new WebSocket", room: "conversation:42", event: "new_message" },
  { page: "docs/clients.md", has: "new EventSource", room: "conversation:42", event: "new_message", shown: "show" },
  { page: "docs/protocol/sse.md", has: "new EventSource", room: "news", event: "new_message", shown: "show" },
  { page: "docs/protocol/websocket.md", has: "function connect", room: "conversation:42", event: "new_message", shown: "show" },
  { page: "docs/guides/from-centrifugo.md", has: "socket.recovered", before: io, room: "chat:42", event: "message", shown: "show" },
  { page: "docs/guides/from-centrifugo.md", has: "new WebSocket", room: "chat:42", event: "message" },
  { page: "docs/guides/from-pusher.md", has: '"subscribe", "private', before: io, room: "private-orders-42", event: "shipped", shown: "show" },
  { page: "docs/guides/from-pusher.md", has: "new EventSource", room: "private-orders-42", event: "shipped", shown: "show" },
  { page: "docs/guides/mobile.md", has: "new WebSocket", room: "chat:42", event: "message", shown: "show" },
];
/** Every function of the application that a block calls. */
const FUNCTIONS = ["show", "showError", "loadConversation", "loadChat", "signIn", "report", "reload", "reloadFromYourApi", "askForAFreshToken", "loadStateFromYourApi", "stored", "store"];


suite("the client code of the documents", () => {
  after(() => assertAllRun("clients.test.mjs"));
  let pages;
  before(async () => (pages = await startPages()));
  after(() => pages?.close());
  const configured = (more = {}) => ({ cors: { origins: [pages.origin] }, rooms, on, ...more });
  // One page at a time: a page's module is served from one place.
  let turn = Promise.resolve();
  const run = (...args) => (turn = turn.catch(() => {}).then(() => pages.run(...args)));

  for (const { page, has, before: above = "", room, event, shown } of LISTENERS) {
    scenario(`${page}: ${has}`, async (s) => {
      const node = await s.node(configured());
      const stage = await run(node, above + snippet(page, "js", has), FUNCTIONS);
      s.keep({ close: () => stage.page.close() });
      await until(async () => (await fetchRoom(node, room)) === 1, () => `a member of ${room}; errors: ${stage.errors}; lines: ${JSON.stringify(stage.lines)}`);
      await published(node, { room, event, data: { text: "hi" } });
      if (shown) assert.ok(JSON.stringify(await stage.called(shown)).includes('{"text":"hi"}'));
      else await until(() => stage.lines.flat().find((line) => line.event === event && line.data.text === "hi"), "the event on the console");
      assert.deepEqual(stage.errors, []);
    });
  }

  scenario("docs/guarantees.md: a first connection loads the state", async (s) => {
    const node = await s.node(configured());
    const { called, page } = await run(node, connecting + snippet("docs/guarantees.md", "js", "loadStateFromYourApi"), FUNCTIONS);
    s.keep({ close: () => page.close() });
    assert.deepEqual(await called("loadStateFromYourApi"), []);
  });

  scenario("docs/limits.md: an event over the rate is sent again when it may be", async (s) => {
    const node = await s.node(configured({ limits: { events_per_second: 100 } }));
    const code = `${connecting}${snippet("docs/limits.md", "js", "rate_limited")}
      for (let number = 0; number < 700; number++) emit(socket, "echo", number).then((answer) => show(answer));`;
    const { page } = await run(node, code, FUNCTIONS);
    s.keep({ close: () => page.close() });
    const answers = () => page.evaluate(() => globalThis.calls.map(([, [answer]]) => answer));
    await until(async () => (await answers()).length === 700, "an answer to each event", 40_000);
    assert.deepEqual((await answers()).sort((a, b) => a - b), [...Array(700).keys()]);
    assert.ok((await node.metric('roomcast_events_refused_total{reason="rate_limited",source="client"}')) > 0, "the limit was reached");
  });

  scenario("docs/from-socketio.md: users of the flag connect to the other path", async (s) => {
    const node = await s.node(configured({ socketio: { path: "/rt/" } }));
    const code = `${io}const user = "7", realtime = { onRoomcast: () => true };
      ${snippet("docs/from-socketio.md", "js", "realtime.onRoomcast")}
      socket.on("connect", () => show(socket.id));`;
    const { called, page } = await run(node, code, FUNCTIONS);
    s.keep({ close: () => page.close() });
    assert.equal((await called("show")).length, 1);
  });

  scenario("docs/guides/mobile.md: an app connects when it is active, and disconnects in the background", async (s) => {
    const node = await s.node(configured());
    const code = `${snippet("docs/guides/mobile.md", "js", "react-native")}
      socket.on("connect", () => show("connected")); socket.on("disconnect", (reason) => reload(reason));`;
    const { called, page } = await run(node, code, FUNCTIONS);
    s.keep({ close: () => page.close() });
    await called("show");
    await page.evaluate(() => globalThis.setAppState("background"));
    assert.deepEqual(await called("reload"), ["io client disconnect"]);
    await page.evaluate(() => { globalThis.calls = []; globalThis.setAppState("active"); });
    await called("show");
  });
});

/** How many connections are in a room. */
async function fetchRoom(node, room) {
  const answer = await node.get(`/rooms/${encodeURIComponent(room)}`, { authorization: `Bearer ${KEY}` });
  return answer.json().connections;
}

test("with the rules of the Pusher guide a user hears their own room, public channels, and nobody else's room", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-pusher-"));
  const [, rules] = /```toml\n(.*?)```/s.exec(fs.readFileSync(path.join(ROOT, "docs/guides/from-pusher.md"), "utf8"));
  fs.writeFileSync(path.join(folder, "roomcast.toml"), rules);
  const port = await freePort();
  const env = { JWT_SECRET: SECRET, ROOMCAST_BACKEND__SECRET: SECRET, ROOMCAST_LISTEN: `127.0.0.1:${port}` };
  const node = new Daemon(["serve", "--config", path.join(folder, "roomcast.toml")], env);
  try {
    await until(() => request(`http://127.0.0.1:${port}/health`).then(({ status }) => status === 200, () => false), () => node.output);
    for (const [room, expected] of [["user:7", 200], ["news", 200], ["user:8", 403]]) {
      const ended = new AbortController();
      const { status } = await fetch(`http://127.0.0.1:${port}/sse?room=${room}&token=${tokenFor("7")}`, { signal: ended.signal });
      ended.abort();
      assert.equal(status, expected, room);
    }
  } finally {
    await node.stop("SIGKILL");
    fs.rmSync(folder, { recursive: true });
  }
});
