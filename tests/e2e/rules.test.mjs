// [[rooms]] and [[on]]: what an event of a client does.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const chat = {
  rooms: [
    { match: "user:{user}", join: "auto" },
    { match: "tenant:{claims.tenant.id}", join: "auto" },
    { match: "chat:secret", join: "deny" },
    { match: "chat:<chatId>", join: "allow" },
    { match: "files:*", join: "allow" },
  ],
  on: [
    { event: "connection", reply: { event: "connected", args: [{ message: "Welcome {user}", userId: "{user}" }] } },
    {
      event: "join_chat", join: "chat:{0.chatId}",
      reply: { event: "joined_chat", args: [{ chatId: "{0.chatId}", message: "Joined" }] },
      ack: [{ success: true }],
      on_error: { event: "error", args: [{ message: "{error}" }] },
      ack_error: [{ success: false, error: "{error}" }],
    },
    { event: "leave_chat", leave: ["chat:{0.chatId}"], reply: { event: "left_chat", args: [{ chatId: "{0.chatId}" }] } },
    {
      event: "typing",
      emit: [{ room: "chat:{0.chatId}", event: "user_typing", volatile: true, args: [{ userId: "{user}", isTyping: "{0.isTyping}" }] }],
    },
    { event: "shout", emit: [{ room: "chat:{0}", event: "shouted", include_caller: true, args: ["{args}", "from {user}"] }], ack: ["{1}"] },
    { event: "who", ack: [{ user: "{user}", tenant: "{claims.tenant}", session: "{session}", namespace: "{namespace}", auth: "{auth}" }] },
    { event: "disconnect", emit: [{ room: "chat:1", event: "gone", args: ["{user}"] }] },
  ],
};

const tokenOf = (user, tenant = 5) => tokenFor(user, { tenant: { id: tenant } });

suite("rules", () => {
  scenario("automatic rooms by user and nested claim are joined, and the connection rule replies", async ({ node, io }) => {
    const one = await node(chat);
    const client = await io(one, { token: tokenOf("7") }).connected();
    assert.deepEqual(await client.event("connected"), [{ message: "Welcome 7", userId: "7" }]);
    await published(one, { room: "user:7", event: "own", data: 1 });
    await published(one, { room: "tenant:5", event: "tenant", data: 1 });
    await Promise.all([client.event("own"), client.event("tenant")]);
  });

  scenario("a join replies and acknowledges; a refused join uses on_error and ack_error; a leave ends the events", async ({ node, io }) => {
    const one = await node(chat);
    const client = await io(one, { token: tokenOf("7") }).connected();
    assert.deepEqual(await client.ask("join_chat", { chatId: 42 }), [{ success: true }]);
    assert.deepEqual(await client.event("joined_chat"), [{ chatId: 42, message: "Joined" }], "a number stays a number");
    await published(one, { room: "chat:42", event: "in", data: 1 });
    await client.event("in");
    for (const args of [[{ chatId: "secret" }], [{}], [], [{ chatId: null }], [{ chatId: "a:b" }], ["x"]]) {
      const before = client.argsOf("error").length;
      const [answer] = await client.ask("join_chat", ...args);
      assert.equal(answer.success, false, JSON.stringify(args));
      assert.equal(typeof answer.error, "string");
      await until(() => client.argsOf("error").length === before + 1, "the error event");
      assert.deepEqual(client.argsOf("error").at(-1), [{ message: answer.error }]);
    }
    assert.equal(client.argsOf("joined_chat").length, 1, "a refused join does not reply");
    client.socket.emit("leave_chat", { chatId: 42 });
    assert.deepEqual(await client.event("left_chat"), [{ chatId: 42 }]);
    await published(one, { room: "chat:42", event: "out", data: 1 });
    await published(one, { room: "user:7", event: "end", data: 1 });
    await client.event("end");
    assert.deepEqual(client.argsOf("out"), []);
  });

  scenario("patterns: the first match decides, <name> is one segment, * is the rest, and a room without a match is refused", async ({ node, ws }) => {
    const one = await node(chat);
    const client = await ws(one, { token: tokenOf("7") }).welcomed();
    const allowed = ["chat:1", "chat:é", "files:", "files:a:b/c", "user:7", "tenant:5"];
    const refused = ["chat:secret", "chat:", "chat:1:2", "chat", "file:1", "user:8", "user:77", "tenant:6", "other", ""];
    for (const room of allowed) assert.equal((await client.ask({ type: "join", room })).type, "joined", room);
    for (const room of refused) assert.equal((await client.ask({ type: "join", room })).type, "error", room);
  });

  scenario("emit reaches the others, or also the caller with include_caller, and only rooms that the caller is in", async ({ node, io }) => {
    const one = await node(chat);
    const [a, b] = await Promise.all(["7", "8"].map((user) => io(one, { token: tokenOf(user), transports: ["websocket"] }).connected()));
    for (const client of [a, b]) await client.ask("join_chat", { chatId: 1 });
    a.socket.emit("typing", { chatId: 1, isTyping: true });
    assert.deepEqual(await b.event("user_typing"), [{ userId: "7", isTyping: true }]);
    assert.deepEqual(await a.ask("shout", 1, { n: 9 }), [{ n: 9 }]);
    for (const client of [a, b]) assert.deepEqual(await client.event("shouted"), [1, { n: 9 }, "from 7"]);
    assert.deepEqual(a.argsOf("user_typing"), []);
    const outsider = await io(one, { token: tokenOf("9") }).connected();
    const [{ error }] = await outsider.ask("shout", 1, "let me in");
    assert.match(error.code, /^[a-z_]+$/);
    assert.ok((await a.ask("shout", 1, "end"))[0]);
    await until(() => b.argsOf("shouted").some(([, said]) => said === "end"), "the end");
    assert.deepEqual(b.argsOf("shouted").filter(([, said]) => said === "let me in"), []);
  });

  scenario("placeholders keep JSON types, and {auth} omits the token", async ({ node, io }) => {
    const one = await node(chat);
    const token = tokenFor(7, { tenant: { id: 5, tags: ["x"] } });
    const client = await io(one, { auth: { token, device: "phone", n: [1] } }).connected();
    const [who] = await client.ask("who");
    assert.deepEqual(who, {
      user: 7, tenant: { id: 5, tags: ["x"] }, session: client.socket.id, namespace: "/", auth: { device: "phone", n: [1] },
    });
    assert.deepEqual(await client.event("connected"), [{ message: "Welcome 7", userId: 7 }]);
  });

  scenario("the disconnect rule runs for every kind of disconnection", async ({ node, io }) => {
    const one = await node(chat);
    const stays = await io(one, { token: tokenOf("1") }).connected();
    await stays.ask("join_chat", { chatId: 1 });
    const ways = [(socket) => socket.disconnect(), (socket) => socket.io.engine.transport.close(), (socket) => socket.io.engine.close()];
    for (const [n, go] of ways.entries()) {
      const leaver = await io(one, { token: tokenOf(`leaver${n}`), transports: ["websocket"], reconnection: false }).connected();
      await leaver.ask("join_chat", { chatId: 1 });
      go(leaver.socket);
      await until(() => stays.argsOf("gone").some(([user]) => user === `leaver${n}`), `leaver${n} gone`);
    }
    assert.equal(stays.argsOf("gone").length, 3);
  });

  scenario("/ws uses the rules of the main namespace, and a user with a numeric id joins its own room", async ({ node, ws }) => {
    const one = await node(chat);
    const client = await ws(one, { token: tokenFor(7, { tenant: { id: 5 } }) }).welcomed();
    assert.deepEqual((await client.event("connected")).data, { message: "Welcome 7", userId: 7 });
    const answer = await client.ask({ type: "event", event: "join_chat", data: { chatId: 3 } });
    assert.deepEqual([answer.type, answer.data], ["ack", { success: true }]);
    assert.deepEqual((await client.event("joined_chat")).data, { chatId: 3, message: "Joined" });
    await published(one, { rooms: ["user:7"], event: "own", data: 1 });
    await client.event("own");
    const refused = await client.ask({ type: "event", event: "join_chat", data: { chatId: "secret" } });
    assert.equal((refused.data ?? refused.args?.[0])?.success, false);
  });
});
