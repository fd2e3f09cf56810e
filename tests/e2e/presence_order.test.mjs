// Presence and acknowledgements: what was acknowledged is in the presence store, its announcement is in the log before
// anything that the session sends afterwards, and nothing acknowledged cancels out.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { stopwatch, until, within } from "../harness/deadline.mjs";
import { assertError, command } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const POLLING = { transports: ["polling"] };
const TURNS = 10;
const ok = [{ ok: true }];
const announced = (kind, key) => ({
  presence: true,
  joined: { event: `${kind}_joined`, args: [{ userId: "{user}", [key]: `{${key}}` }] },
  left: { event: `${kind}_left`, args: [{ userId: "{user}", [key]: `{${key}}` }] },
});
const rooms = [
  { match: "user:{user}", join: "auto" },
  { match: "chat:<chatId>", join: "allow", ...announced("user", "chatId") },
  { match: "lobby:{claims.lobby}", join: "auto", presence: true },
  { match: "lobby:<name>", join: "allow", ...announced("lobby", "name") },
  { match: "plain:<n>", join: "allow" },
];
const on = [
  { event: "join_chat", join: "chat:{0}", ack: ok },
  { event: "leave_chat", leave: "chat:{0}", ack: ok },
  { event: "join_plain", join: "plain:{0}", ack: ok },
  { event: "typing", emit: [{ room: "chat:{0}", event: "user_typing", args: ["{user}"] }], ack: ok },
  { event: "typing_volatile", emit: [{ room: "chat:{0}", event: "user_typing", volatile: true, args: ["{user}"] }] },
  { event: "hello", emit: [{ room: "lobby:{0}", event: "said_hello", args: ["{user}"] }], ack: ok },
];
const forwarded = { event: "ask", forward: true };
const token = (user, claims) => tokenFor(user, claims);
const ask = async (node, path) => (await node.get(path, { authorization: `Bearer ${KEY}` })).json();
const room = async (node, name) => {
  const { connections, users } = await ask(node, `/rooms/${name}`);
  return `${connections} ${users}`;
};
const user = async (node, id) => {
  const { online, connections } = await ask(node, `/users/${id}`);
  return `${online ? "online" : "offline"} ${connections}`;
};
const names = (client) => (client.events ?? client.messages.filter(({ type }) => type === "event")).map((event) => event.name ?? event.event);
const announcements = (client) => names(client).filter((name) => /^user_/.test(name));

/** `nodes`: clients are on the first, and the last is asked. */
const PLACES = [
  ["embedded", { redis: false, count: 1 }],
  ["Redis, one node", { redis: true, count: 1 }],
  ["Redis, asked on another node", { redis: true, count: 2 }],
];

async function place(s, { redis, count }, more = {}) {
  const backend = s.keep(await startBackend());
  const store = redis && (await s.redis());
  const settings = {
    rooms, on, presence: { grace: "300ms", lease: "10s" },
    ...(store && { redis: { url: store.url } }),
    ...backend.config({ notify: ["online", "offline", "occupied", "vacated"] }),
    ...more,
  };
  const nodes = await Promise.all(Array.from({ length: count }, () => s.node(settings)));
  return { backend, store, nodes, node: nodes[0], asked: nodes.at(-1) };
}

/** A client of each kind, with the same functions. */
const KINDS = {
  "Socket.IO, WebSocket": async (s, node, options) => ioMember(await atOnce(s.io(node, { ...WEBSOCKET, ...options }))),
  "Socket.IO, polling": async (s, node, options) => ioMember(await atOnce(s.io(node, { ...POLLING, ...options }))),
  "/ws": async (s, node, options) => {
    const client = s.ws(node, options);
    await next(client, ({ type }) => type === "welcome");
    return wsMember(client);
  },
};
const atOnce = async (client) => {
  await within(new Promise((resolve) => client.socket.once("connect", resolve)), "connected");
  return client;
};
const streaming = async (client) => {
  await within(new Promise((resolve) => client.request.once("response", resolve)), "the head of the answer");
  return client;
};

const ioMember = (client) => ({
  client,
  join: async (chat) => assert.deepEqual(await client.ask("join_chat", chat), ok),
  leave: async (chat) => assert.deepEqual(await client.ask("leave_chat", chat), ok),
  /** Without waiting for any answer. */
  flurry: (chat, event = "typing") => ["join_chat", event, "leave_chat"].forEach((name) => client.socket.emit(name, chat)),
  close: () => client.close(),
});

/** The next `/ws` message that fits, in the turn in which it comes: polling for it would give presence time to catch up. */
const next = (client, fits) => {
  const come = new Promise((resolve) => {
    const look = (text) => {
      const message = JSON.parse(text);
      if (!fits(message)) return;
      client.socket.off("message", look);
      resolve(message);
    };
    client.socket.on("message", look);
  });
  return within(come, `a message of /ws; got ${JSON.stringify(client.messages)}`);
};
const wsAsk = (client, message) => {
  const id = `${message.type} ${message.room} ${Math.random()}`;
  const answer = next(client, (each) => each.id === id);
  client.send({ ...message, id });
  return answer;
};

const wsMember = (client) => ({
  client,
  join: async (chat) => assert.equal((await wsAsk(client, { type: "join", room: `chat:${chat}` })).type, "joined"),
  leave: async (chat) => assert.equal((await wsAsk(client, { type: "leave", room: `chat:${chat}` })).type, "left"),
  flurry: (chat, event = "typing") => {
    client.send({ type: "join", room: `chat:${chat}` });
    client.send({ type: "event", event, data: chat });
    client.send({ type: "leave", room: `chat:${chat}` });
  },
  close: () => client.close(),
});

for (const [where, options] of PLACES) {
  suite(`presence and acknowledgements: ${where}`, () => {
    for (const [kind, connect] of Object.entries(KINDS)) {
      scenario(`GET /rooms/{room} right after an acknowledged join and leave shows it: ${kind}`, async (s) => {
        const { node, asked } = await place(s, options);
        const member = await connect(s, node, { token: token("7") });
        const answers = [];
        for (let turn = 0; turn < TURNS; turn += 1) {
          await member.join(turn);
          answers.push(await room(asked, `chat:${turn}`));
          await member.leave(turn);
          answers.push(await room(asked, `chat:${turn}`));
        }
        assert.deepEqual(answers, Array(TURNS).fill(["1 7", "0 "]).flat());
      });

      scenario(`GET /users/{id} right after connecting shows the user online: ${kind}`, async (s) => {
        const { node, asked } = await place(s, options);
        const answers = [];
        for (let turn = 0; turn < TURNS; turn += 1) {
          const id = String(Math.floor(turn / 2));
          await connect(s, node, { token: token(id) });
          answers.push(await user(asked, id));
        }
        assert.deepEqual(answers, Array(TURNS / 2).fill(["online 1", "online 2"]).flat());
      });

      scenario(`a join, an event and a leave without waiting are announced in this order, every time: ${kind}`, async (s) => {
        const { node, asked } = await place(s, options);
        const watcher = await s.io(asked, { token: token("1"), ...WEBSOCKET }).connected();
        assert.deepEqual(await watcher.ask("join_chat", 1), ok);
        const member = await connect(s, node, { token: token("7") });
        for (let turn = 0; turn < TURNS; turn += 1) member.flurry(1);
        const wanted = Array(TURNS).fill(["user_joined", "user_typing", "user_left"]).flat();
        await until(() => announcements(watcher).length >= wanted.length, () => `all announced; got ${announcements(watcher)}`);
        assert.deepEqual(announcements(watcher), wanted);
      });

      scenario(`a volatile event right after a join does not overtake its announcement: ${kind}`, async (s) => {
        const { node, asked } = await place(s, options);
        const watcher = await s.io(asked, { token: token("1"), ...WEBSOCKET }).connected();
        assert.deepEqual(await watcher.ask("join_chat", 1), ok);
        const member = await connect(s, node, { token: token("7") });
        const count = (list, name) => list.filter((other) => other === name).length;
        for (let turn = 0; turn < 4 * TURNS; turn += 1) member.flurry(1, "typing_volatile");
        await until(() => count(announcements(watcher), "user_left") === 4 * TURNS, () => `all announced; got ${announcements(watcher)}`);
        const got = announcements(watcher);
        const early = got.filter((name, at) => name === "user_typing" && count(got.slice(0, at), "user_typing") >= count(got.slice(0, at), "user_joined"));
        assert.equal(early.length, 0, `${got}`);
        assert.ok(count(got, "user_typing") > 0, "volatile events arrive");
      });

      scenario(`automatic rooms are counted and announced before the connection is acknowledged: ${kind}`, async (s) => {
        const { node, asked } = await place(s, options);
        const watcher = await s.ws(asked, { token: token("1") }).welcomed();
        await watcher.join("lobby:main");
        const answers = [];
        for (let turn = 2; turn < TURNS; turn += 1) {
          await connect(s, node, { token: token(String(turn), { lobby: "main" }) });
          answers.push(await room(asked, "lobby:main"));
        }
        assert.deepEqual(answers.map((answer) => answer.split(" ")[0]), Array.from({ length: TURNS - 2 }, (_, n) => String(n + 2)));
      });
    }

    scenario("GET /rooms/{room} and /users/{id} right after the head of an SSE answer show the client", async (s) => {
      const { node, asked } = await place(s, options);
      const answers = [];
      for (let turn = 0; turn < TURNS; turn += 1) {
        await streaming(s.sse(node, { token: token(String(turn)), rooms: [`chat:${turn}`] }));
        answers.push(await room(asked, `chat:${turn}`), await user(asked, String(turn)));
      }
      assert.deepEqual(answers, Array.from({ length: TURNS }, (_, turn) => [`1 ${turn}`, "online 1"]).flat());
    });

    scenario("GET /rooms/{room} and /users/{id} right after an answered POST /join, /leave and /disconnect show its effect", async (s) => {
      // A user stays in the room for the grace period after the disconnection.
      const { node, asked } = await place(s, options, { presence: { grace: "20s", lease: "30s" } });
      const [clients, answers] = [[], []];
      for (let turn = 0; turn < TURNS; turn += 1) {
        const id = String(turn);
        clients.push(await KINDS[turn % 2 ? "/ws" : "Socket.IO, WebSocket"](s, node, { token: token(id) }));
        for (const verb of ["/join", "/leave", "/join"]) {
          const answer = await command(asked, verb, { user: id, rooms: [`chat:${turn}`] });
          assert.deepEqual(answer.json(), { sessions: 1 });
          answers.push(await room(asked, `chat:${turn}`));
        }
        assert.deepEqual((await command(asked, "/disconnect", { user: id })).json(), { sessions: 1 });
        answers.push(await user(asked, id), await room(asked, `chat:${turn}`));
      }
      assert.deepEqual(answers, clients.flatMap((_, turn) => [`1 ${turn}`, "0 ", `1 ${turn}`, "online 0", `0 ${turn}`]));
    });

    scenario("POST /join and /leave in quick succession are all announced", async (s) => {
      const { node, asked } = await place(s, options);
      const watcher = await s.io(node, { token: token("1"), ...WEBSOCKET }).connected();
      await watcher.ask("join_chat", 1);
      const { client } = await KINDS["/ws"](s, node, { token: token("7") });
      for (let turn = 0; turn < TURNS; turn += 1) {
        for (const verb of ["/join", "/leave"]) assert.equal((await command(asked, verb, { user: "7", rooms: ["chat:1"] })).status, 200);
      }
      const wanted = Array(TURNS).fill(["user_joined", "user_left"]).flat();
      await until(() => announcements(watcher).length >= wanted.length, () => `all announced; got ${announcements(watcher)}`);
      assert.deepEqual(announcements(watcher), wanted);
      assert.equal(client.messages.filter(({ type }) => type === "joined").length, TURNS);
    });

    scenario("an event that a client sends right after POST /join comes after its joined", async (s) => {
      const { node, asked } = await place(s, options);
      const watcher = await s.io(asked, { token: token("1"), ...WEBSOCKET }).connected();
      await watcher.ask("join_chat", 1);
      const { client } = await KINDS["/ws"](s, node, { token: token("7") });
      client.socket.on("message", (text) => {
        if (JSON.parse(text).type === "joined") client.send({ type: "event", event: "typing", data: 1 });
      });
      for (let turn = 0; turn < TURNS; turn += 1) {
        await command(asked, "/join", { user: "7", rooms: ["chat:1"] });
        await until(() => names(watcher).filter((name) => name === "user_typing").length === turn + 1, () => `typing ${turn}`);
        await command(asked, "/leave", { user: "7", rooms: ["chat:1"] });
      }
      const wanted = Array(TURNS).fill(["user_joined", "user_typing", "user_left"]).flat();
      await until(() => announcements(watcher).length >= wanted.length, () => `all announced; got ${announcements(watcher)}`);
      assert.deepEqual(announcements(watcher), wanted);
    });

    scenario("a join and a leave in the backend's answer are announced", async (s) => {
      const { backend, node, asked } = await place(s, options, { on: [forwarded] });
      backend.answer = ({ type, args }) => (type === "event" ? { [args[0].verb]: [`chat:${args[0].chat}`], ack: ok } : {});
      const client = await s.io(node, { token: token("7"), ...WEBSOCKET }).connected();
      const answers = [];
      for (let chat = 0; chat < TURNS; chat += 1) {
        for (const verb of ["join", "leave"]) {
          assert.deepEqual(await client.ask("ask", { verb, chat }), ok);
          answers.push(await room(asked, `chat:${chat}`));
        }
      }
      assert.deepEqual(answers, Array(TURNS).fill(["1 7", "0 "]).flat());
    });

    scenario("a join by the connection rule is counted and announced before the rule's emits", async (s) => {
      const greeting = { event: "connection", join: "chat:{user}", reply: { event: "greeted", args: [] }, emit: [{ room: "chat:{user}", event: "user_typing", args: [] }] };
      const { node, asked } = await place(s, options, { on: [...on, greeting] });
      const watcher = await s.io(asked, { token: token("1"), ...WEBSOCKET }).connected();
      const answers = [];
      for (let turn = 2; turn < TURNS; turn += 1) {
        await watcher.ask("join_chat", turn);
        const client = await s.io(node, { token: token(turn), ...WEBSOCKET }).connected();
        await client.event("greeted");
        answers.push(await room(asked, `chat:${turn}`));
      }
      assert.deepEqual(answers, Array.from({ length: TURNS - 2 }, (_, n) => `2 1,${n + 2}`));
      const wanted = Array(TURNS - 2).fill(["user_joined", "user_typing"]).flat();
      await until(() => announcements(watcher).length >= wanted.length, () => `all announced; got ${announcements(watcher)}`);
      assert.deepEqual(announcements(watcher), wanted);
    });
  });
}

suite("presence and acknowledgements: nodes and outages", () => {
  scenario("kill -9 right after an acknowledged join: the room is vacated and the user goes offline", async (s) => {
    const { backend, nodes: [a, b], store } = await place(s, { redis: true, count: 2 }, { presence: { grace: "200ms", lease: "6s" } });
    for (let turn = 0; turn < 5; turn += 1) {
      const extra = turn === 0 ? a : await s.node({ rooms, on, presence: { grace: "200ms", lease: "6s" }, redis: { url: store.url } });
      const client = await s.io(extra, { token: token(`u${turn}`), ...WEBSOCKET, reconnection: false }).connected();
      assert.deepEqual(await client.ask("join_chat", turn), ok);
      await extra.stop("SIGKILL");
    }
    for (let turn = 0; turn < 5; turn += 1) {
      await until(() => backend.of("vacated").some((call) => call.room === `chat:${turn}`), () => `vacated chat:${turn}`);
      await until(() => backend.of("offline").some((call) => call.user === `u${turn}`), () => `offline u${turn}`);
      assert.deepEqual([await room(b, `chat:${turn}`), await user(b, `u${turn}`)], ["0 ", "offline 0"]);
    }
  });

  scenario("a session that is resumed on another node is counted there before the client is connected", async (s) => {
    const { nodes: [a, b] } = await place(s, { redis: true, count: 2 }, { presence: { grace: "5s", lease: "10s" } });
    const door = await s.proxy(a);
    const client = await s.io(door, { token: token("7"), ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("join_chat", 1), ok);
    for (let turn = 0; turn < TURNS; turn += 1) {
      const answers = new Promise((resolve) => client.socket.once("connect", () => resolve(Promise.all([user(b, "7"), room(a, "chat:1")]))));
      door.target = turn % 2 ? a : b;
      door.cut();
      // The node that lost the connection may notice a moment later: then there are two for that moment.
      const [online, inside] = await answers;
      assert.match(online, /^online [12]$/);
      assert.match(inside, /^[12] 7$/);
      assert.equal(client.socket.recovered, true);
    }
  });

  scenario("Redis hangs: joins are refused, leaves report it, connections are accepted, and all is counted when it is back", async (s) => {
    const { store, node } = await place(s, { redis: true, count: 1 }, { presence: { grace: "300ms", lease: "1m" } });
    const watcher = await s.io(node, { token: token("1"), ...WEBSOCKET }).connected();
    await watcher.ask("join_chat", 1);
    const [member, plain] = [await KINDS["Socket.IO, WebSocket"](s, node, { token: token("7") }), await KINDS["/ws"](s, node, { token: token("8") })];
    await member.join(2);
    await plain.join(3);
    store.signal("SIGSTOP");
    const took = stopwatch();
    const refusals = await Promise.all([
      member.client.ask("join_chat", 1).then(([{ error }]) => error.code),
      wsAsk(plain.client, { type: "join", room: "chat:1" }).then(({ code }) => code),
      s.sse(node, { token: token("9"), rooms: ["chat:1"] }).answered().then(({ status }) => status),
    ]);
    assert.deepEqual(refusals, ["unavailable", "unavailable", 503]);
    const leaves = await Promise.all([
      member.client.ask("leave_chat", 2).then(([{ error }]) => error.code),
      wsAsk(plain.client, { type: "leave", room: "chat:3" }).then(({ code }) => code),
    ]);
    assert.deepEqual(leaves, ["unavailable", "unavailable"]);
    const newcomers = await Promise.all(Object.values(KINDS).map((connect, n) => connect(s, node, { token: token(`new${n}`) })));
    assert.ok(took() < 20_000, `${took()} ms for three rounds of 1.5 s`);
    store.signal("SIGCONT");
    await until(() => node.answers("/health"), "well again");
    const becomes = (what, wanted) => until(async () => (await what()) === wanted, () => wanted);
    for (const n of newcomers.keys()) await becomes(() => user(node, `new${n}`), "online 1");
    for (const [name, inside] of [["chat:1", "1 1"], ["chat:2", "0 "], ["chat:3", "0 "]]) await becomes(() => room(node, name), inside);
    // One that was on its way when Redis hung may have come to be; then it was taken back.
    const balance = () => announcements(watcher).filter((name) => name === "user_joined").length - announcements(watcher).filter((name) => name === "user_left").length;
    await until(() => balance() === 0, () => `as many left as joined; got ${announcements(watcher)}`);
    await member.join(1);
    await plain.join(1);
    assert.equal(await room(node, "chat:1"), "3 1,7,8");
    await until(() => balance() === 2, () => `two announced; got ${announcements(watcher)}`);
    assert.ok(newcomers.every(({ client }) => !client.end && (client.connects ?? 1) === 1));
  });

  scenario("a join is refused while Redis refuses writes, and accepted afterwards", async (s) => {
    const store = await s.redis();
    await store.cli("ACL", "SETUSER", "a", "on", ">secret", "~*", "&*", "+@all");
    const node = await s.node({ rooms, on, redis: { url: `redis://a:secret@127.0.0.1:${store.port}/0` } });
    const member = await KINDS["/ws"](s, node, { token: token("7") });
    await member.join(1);
    await store.cli("ACL", "SETUSER", "a", "-evalsha", "-eval");
    assert.equal((await wsAsk(member.client, { type: "join", room: "chat:2" })).code, "unavailable");
    await store.cli("ACL", "SETUSER", "a", "+evalsha", "+eval");
    await member.join(2);
    assertError(await command(node, "/join", { user: "7" }), 400);
    // Rooms are answered with 503 until everything of the outage is written.
    const members = () => room(node, "chat:2");
    await until(async () => (await members()) !== "undefined undefined", "rooms are answered again");
    assert.equal(await members(), "1 7");
  });
});
