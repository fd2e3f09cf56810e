// The backend of examples/chat: who may join, which webhooks it accepts, and its dependencies.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { connectIo } from "../harness/clients.mjs";
import { until } from "../harness/deadline.mjs";
import { post } from "../harness/http.mjs";
import { EXAMPLE, withChat } from "./stage.mjs";

const TIMEOUT = 180_000;

const secondsAgo = (seconds) => Math.floor(Date.now() / 1000) - seconds;

function signed(secret, body, time = secondsAgo(0)) {
  const tag = crypto.createHmac("sha256", secret).update(`${time}.${body}`).digest("hex");
  return { "X-Roomcast-Signature": `t=${time},v1=${tag}` };
}

test("the webhook accepts only calls with a valid and fresh signature", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const ann = await chat.api("Ann");
    const id = await ann.startWith(await chat.api("Bob"));
    const body = JSON.stringify({ type: "join", id: "1", user: ann.user.id, room: `conversation:${id}`, rooms: [] });
    const ask = async (headers, text = body) => (await post(`${chat.url}/roomcast`, text, headers)).status;
    const secret = chat.webhookSecret();
    const good = signed(secret, body);
    assert.equal(await ask(good), 200);
    assert.equal(await ask({}), 401);
    assert.equal(await ask(good, body.replace(ann.user.id, "somebody else")), 401);
    assert.equal(await ask(signed("another secret", body)), 401);
    assert.equal(await ask(signed(secret, body, secondsAgo(600))), 401, "signed too long ago");
    assert.equal(await ask(signed(secret, body, secondsAgo(-600))), 401, "signed in the future");
  }));

test("only participants can join a conversation", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob, eve] = await Promise.all(["Ann", "Bob", "Eve"].map(chat.api));
    const id = await ann.startWith(bob);
    const connect = async ({ token }) => chat.keep(connectIo({ url: ann.realtimeUrl }, { token })).connected();
    const [first, stranger] = [await connect(bob), await connect(eve)];
    assert.deepEqual(await first.ask("conversation:join", id), [{ ok: true }]);
    for (const room of [id, String(id), `0${id}`, `${id}x`, 999, null]) {
      const [{ error, ok }] = await stranger.ask("conversation:join", room);
      assert.ok(error.code && !ok, `${room}`);
    }
    stranger.socket.emit("typing", { conversationId: id, isTyping: true });
    const said = await ann.say(id, "for Bob");
    assert.deepEqual(await first.event("message:new"), [said]);
    // The update of the new conversation may come after Bob has connected.
    const update = await until(() => first.argsOf("conversation:update").find(([{ lastMessage }]) => lastMessage), "the update");
    assert.deepEqual([update[0].id, update[0].unread, update[0].lastMessage.text], [id, 1, "for Bob"]);
    await eve.startWith(bob);
    await stranger.event("conversation:update");
    assert.deepEqual(stranger.events.map(({ name }) => name), ["conversation:update"]);
    assert.deepEqual(first.argsOf("typing"), []);
  }));

test("messages sent while roomcast is down are published once when it is back, and a repeated request is one message", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = await Promise.all(["Ann", "Bob"].map(chat.api));
    const id = await ann.startWith(bob);
    const events = () => chat.metric('roomcast_events_total{source="http"}');
    let published;
    const are = (count) => until(async () => (published = await events()) === count, () => `${count} events; ${published}`);
    await are(2);
    await chat.roomcast.stop();
    for (const text of ["one", "two", "one"]) await ann.say(id, text);
    // The backend may restart before roomcast is back: its outbox is in the database.
    await chat.backend.stop("SIGKILL");
    await chat.startBackend();
    await chat.startRoomcast();
    // Each message and an update for each participant. No client connects, so no webhook wakes the backend.
    await are(6);
    assert.deepEqual((await ann.get(`/conversations/${id}/messages`)).map(({ text }) => text), ["one", "two"]);
    assert.equal((await bob.get("/conversations"))[0].unread, 2);
    await ann.say(id, "three");
    await are(9);
  }));

test("the backend depends on no socket library", () => {
  const { dependencies } = JSON.parse(fs.readFileSync(path.join(EXAMPLE, "backend/package.json"), "utf8"));
  assert.deepEqual(Object.keys(dependencies), ["@roomcast/server", "express", "jose", "node-sqlite3-wasm"]);
  const lock = JSON.parse(fs.readFileSync(path.join(EXAMPLE, "package-lock.json"), "utf8"));
  const licences = new Set(Object.values(lock.packages).map(({ license }) => license).filter(Boolean));
  for (const licence of licences) assert.match(licence, /^(MIT|ISC|BSD-[23]-Clause|Apache-2\.0)$/);
});
