// Parts fail and return: the badge shows it, and in the end no message is missing or doubled.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connectIo } from "../harness/clients.mjs";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { SLOW, withChat } from "./stage.mjs";

const TIMEOUT = 240_000;

/** Waits until the window shows exactly these messages, in this order. */
async function shows(person, texts, deadline = SLOW) {
  let seen;
  const isSo = async () => JSON.stringify((seen = await person.texts())) === JSON.stringify(texts);
  await until(isSo, () => `${person.name} sees ${JSON.stringify(seen)} instead of ${JSON.stringify(texts)}`, deadline);
}

/** Delays requests to `path` until `pass()` is called. */
async function hold(page, path) {
  let pass;
  const passed = new Promise((resolve) => (pass = resolve));
  await page.route(path, async (route) => {
    await passed;
    await route.continue();
  });
  return pass;
}

test("a message is shown before the server answers, and once afterwards", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const ann = await chat.person("Ann");
    const bob = await chat.api("Bob");
    const id = await bob.startWith(await chat.api("Ann"));
    await ann.open(id);
    const pass = await hold(ann.page, "**/messages");
    await ann.say("not answered yet");
    await ann.seesStatus("not answered yet", "sending");
    await bob.say(id, "meanwhile");
    await ann.sees("meanwhile");
    await shows(ann, ["meanwhile", "not answered yet"]);
    pass();
    await ann.seesStatus("not answered yet", "sent");
    await shows(ann, ["meanwhile", "not answered yet"]);
    assert.equal((await bob.get(`/conversations/${id}/messages`)).length, 2);
  }));

test("the backend is down: a message fails and is sent once by a retry, and a lost answer does not double it", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    await bob.open(id);
    await ann.say("before");
    await bob.sees("before");

    await chat.backend.stop();
    await ann.say("into the void");
    await ann.seesStatus("into the void", "failed");
    await ann.badge("live");
    // The status is "failed" before and after: the second failure is over before the backend starts.
    const again = ann.page.waitForEvent("requestfailed", (asked) => asked.method() === "POST");
    await ann.message("into the void").getByRole("button", { name: "Retry" }).click();
    await again;
    await ann.seesStatus("into the void", "failed");
    await chat.startBackend();
    await ann.message("into the void").getByRole("button", { name: "Retry" }).click();
    await ann.seesStatus("into the void", "read");
    await Promise.all([ann, bob].map((person) => shows(person, ["before", "into the void"])));

    // Saved, but the answer is lost: the page shows a failure until the event arrives.
    await ann.page.route("**/messages", async (route) => {
      await route.fetch();
      await route.abort();
    }, { times: 1 });
    await ann.say("answer lost");
    await bob.sees("answer lost");
    await ann.seesStatus("answer lost", "read");
    await Promise.all([ann, bob].map((person) => shows(person, ["before", "into the void", "answer lost"])));
  }));

test("roomcast is down: reconnecting, offline with polling, live again, and no message is missing or doubled", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    await bob.open(id);
    await ann.say("before");
    await bob.sees("before");
    const cleo = await chat.api("Cleo");
    const other = await cleo.startWith(await chat.api("Ann"));
    await ann.entry(other).waitFor();

    // Shown for a few seconds only.
    await Promise.all([chat.roomcast.stop(), ...[ann, bob].map((person) => person.badge("reconnecting"))]);
    await ann.say("sent while it is away");
    await ann.seesStatus("sent while it is away", "sent");
    await Promise.all([ann, bob].map((person) => person.badge("offline", SLOW)));
    await bob.sees("sent while it is away", SLOW);
    await ann.seesStatus("sent while it is away", "read", SLOW);
    await cleo.say(other, "polled");
    await ann.seesUnread(other, 1, SLOW);

    // Sent just before roomcast returns: no poll has fetched it, and the outbox publishes it.
    const api = await chat.api("Bob");
    await Promise.all([chat.startRoomcast(), api.say(id, "just before it returns")]);
    await Promise.all([ann, bob].map((person) => person.badge("live", SLOW)));
    const all = ["before", "sent while it is away", "just before it returns"];
    await Promise.all([ann, bob].map((person) => shows(person, all)));
    await bob.say("and after");
    await Promise.all([ann, bob].map((person) => shows(person, [...all, "and after"])));
    await bob.seesStatus("and after", "read");
    await ann.seesUnread(other, 1);

    const polls = ann.asked(`GET /api/conversations`);
    await ann.say("no more polling");
    await bob.sees("no more polling");
    assert.equal(ann.asked(`GET /api/conversations`), polls);
  }));

test("a short break of the connection: roomcast replays the missed messages, and the page does not call the API", { timeout: TIMEOUT }, () =>
  withChat(
    async (chat) => {
      const ann = await chat.person("Ann");
      const bob = await chat.api("Bob");
      const id = await bob.startWith(await chat.api("Ann"));
      await ann.open(id);
      await bob.say(id, "before");
      await ann.seesUnread(id, 0);
      await ann.sees("before");
      await until(() => ann.asked(`POST /api/conversations/${id}/read`), "read");

      const there = chat.proxy.target;
      const gone = { port: await freePort() };
      const gets = () => ann.requests.filter((asked) => asked.startsWith("GET /api/")).length;
      const texts = ["before"];
      // A page that is away for more than 4 s fetches. If a busy machine makes the break so long, the next one is measured.
      const isShort = async () => {
        const before = gets();
        chat.proxy.target = gone;
        chat.proxy.cut();
        const missed = [1, 2].map((number) => `missed ${texts.length}.${number}`);
        const said = async () => { for (const text of missed) await bob.say(id, text); };
        await Promise.all([ann.away(), said()]);
        texts.push(...missed);
        chat.proxy.target = there;
        await ann.badge("live", SLOW);
        await shows(ann, texts);
        return gets() === before;
      };
      await until(isShort, "a break after which nothing is fetched", 2 * SLOW);
    },
    { proxied: true },
  ));

test("a short break of the connection without recovery: the page fetches the missed messages from the API", { timeout: TIMEOUT }, () =>
  withChat(
    async (chat) => {
      const ann = await chat.person("Ann");
      const bob = await chat.api("Bob");
      const id = await bob.startWith(await chat.api("Ann"));
      await ann.entry(id).waitFor();
      const there = chat.proxy.target;
      chat.proxy.target = { port: await freePort() };
      chat.proxy.cut();
      await ann.away();
      await bob.say(id, "missed");
      const events = () => chat.metric('roomcast_events_total{source="http"}');
      await until(async () => (await events()) === 5, "five events: two updates of the start, the message and its two updates");
      chat.proxy.target = there;
      await ann.badge("live", SLOW);
      await ann.seesUnread(id, 1);
    },
    { proxied: true, roomcast: { ROOMCAST_RECOVERY__WINDOW: "0s" } },
  ));

test("a conversation that is opened while the backend is down is joined when the backend is back", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const ann = await chat.person("Ann");
    const bob = await chat.api("Bob");
    const id = await bob.startWith(await chat.api("Ann"));
    const { socket } = await chat.keep(connectIo({ url: bob.realtimeUrl }, { token: bob.token })).connected();
    socket.emit("conversation:join", id);
    await ann.entry(id).waitFor();
    await chat.backend.stop();
    await ann.open(id);
    await chat.startBackend();
    // Only clients in the room get typing events.
    const typing = ann.page.locator(".typing", { hasText: "Bob is typing…" });
    await until(() => (socket.emit("typing", { conversationId: id, isTyping: true }), typing.isVisible()), "Ann in the room", SLOW);
    await bob.say(id, "welcome");
    await ann.sees("welcome");
  }));
