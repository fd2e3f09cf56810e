// Two windows: each shows what the other does.
import assert from "node:assert/strict";
import { test } from "node:test";
import { until } from "../harness/deadline.mjs";
import { withChat } from "./stage.mjs";

const TIMEOUT = 180_000;
const TYPED = 15;
const WITHIN_MS = 100;
/** Milliseconds in which one round must be fast enough, since other load on the machine must not count. */
const CALM_WITHIN = 90_000;

/** Records when each text first appears in the list of messages. */
const WATCH = () => {
  window.shownAt = {};
  const look = () => {
    for (const shown of document.querySelectorAll(".messages .text")) window.shownAt[shown.textContent] ??= performance.timeOrigin + performance.now();
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, characterData: true });
};

/** Records when Enter was pressed on each text. */
const NOTE_ENTERS = () => {
  window.enteredAt = {};
  const note = ({ key, target }) => key === "Enter" && (window.enteredAt[target.value] = performance.timeOrigin + performance.now());
  document.addEventListener("keydown", note, { capture: true });
};

test("a message is shown in the other window within 100 ms", { timeout: 2 * CALM_WITHIN }, (t) =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    await bob.open(id);
    await ann.say("first");
    await bob.sees("first");
    await ann.page.evaluate(NOTE_ENTERS);
    await bob.page.evaluate(WATCH);

    const texts = ["first"];
    const quartileOf = async (round) => {
      const typed = Array.from({ length: TYPED }, (_, n) => `message ${round}.${n}`);
      for (const text of typed) {
        await ann.field().pressSequentially(text);
        await ann.field().press("Enter");
        await bob.sees(text);
      }
      texts.push(...typed);
      const entered = await ann.page.evaluate(() => window.enteredAt);
      const shown = await bob.page.evaluate(() => window.shownAt);
      const took = typed.map((text) => shown[text] - entered[text]).sort((a, b) => a - b);
      t.diagnostic(`from Enter until shown in the other window, ms: ${took.map((ms) => ms.toFixed(1)).join(" ")}`);
      // A quarter of them: on a busy machine the others show its load.
      return took[TYPED >> 2];
    };
    const quartiles = [];
    const isFast = async () => (quartiles.push(await quartileOf(quartiles.length)), quartiles.at(-1) < WITHIN_MS);
    await until(isFast, () => `quartiles of ${TYPED}: ${quartiles} ms`, CALM_WITHIN);
    assert.ok(quartiles.at(-1) > 0, `quartiles of ${TYPED}: ${quartiles} ms`);
    assert.deepEqual(await bob.texts(), texts);
    await ann.seesStatus(texts.at(-1), "read");
    assert.deepEqual(await ann.texts(), texts, "each optimistic message replaced");
  }));

test("the typing indicator ends with a message, with a pause, and with the window", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    await bob.open(id);
    const typing = bob.page.locator(".typing", { hasText: "Ann is typing…" });
    // The first keys may be pressed before Bob is in the room, and a volatile event may be lost.
    const types = (text) => until(async () => (await ann.field().pressSequentially(text), typing.isVisible()), "typing", 30_000);
    await types("hello");
    const written = await ann.field().inputValue();
    await ann.field().press("Enter");
    await bob.sees(written);
    await typing.waitFor({ state: "detached" });

    await types("well");
    await typing.waitFor({ state: "detached" });

    await types("…");
    await ann.page.close();
    await typing.waitFor({ state: "detached" });
  }));

test("unread messages are counted, also in the title, until they are read, and the sender sees that", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    for (const text of ["one", "two", "three"]) await ann.say(text);
    await bob.seesUnread(id, 3);
    await until(async () => /^\(3\) Bob/.test(await bob.page.title()), "the title");
    await ann.seesStatus("three", "sent");
    assert.equal(await ann.unread(id), 0, "own messages are not unread");

    await bob.open(id);
    await bob.seesUnread(id, 0);
    for (const text of ["one", "two", "three"]) await ann.seesStatus(text, "read");
    await ann.say("four");
    await ann.seesStatus("four", "read");
    // Messages on screen are read. Ann may learn that before Bob's own count does.
    await bob.seesUnread(id, 0);

    // With another conversation open they count again, until another client of Bob reads them.
    const cleo = await chat.api("Cleo");
    const other = await chat.api("Bob");
    await cleo.say(await cleo.startWith(other), "hello Bob");
    await bob.page.locator(".conversations .title", { hasText: "Cleo" }).click();
    await ann.say("five");
    await bob.seesUnread(id, 1);
    await ann.seesStatus("five", "sent");
    const { id: messageId } = (await other.get(`/conversations/${id}/messages`)).at(-1);
    await other.post(`/conversations/${id}/read`, { messageId });
    await bob.seesUnread(id, 0);
    await ann.seesStatus("five", "read");
  }));

test("a group message is read when all participants have read it, and strangers see nothing", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [cleo, dan] = [await chat.api("Cleo"), await chat.api("Dan")];
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob", "Cleo");
    await bob.open(id);
    await ann.say("all of you");
    await bob.sees("all of you");
    await bob.seesUnread(id, 0);
    await ann.seesStatus("all of you", "sent");
    const [message] = await cleo.get(`/conversations/${id}/messages`);
    await cleo.post(`/conversations/${id}/read`, { messageId: message.id });
    await ann.seesStatus("all of you", "read");
    assert.deepEqual(await dan.get("/conversations"), []);
    await assert.rejects(dan.get(`/conversations/${id}/messages`), /404/);
    await assert.rejects(dan.say(id, "let me in"), /404/);
  }));

test("a token that expires: the socket reconnects with a renewed token", { timeout: TIMEOUT }, () =>
  withChat(
    async (chat) => {
      const ann = await chat.person("Ann");
      const bob = await chat.api("Bob");
      const id = await bob.startWith(await chat.api("Ann"));
      await ann.open(id);
      await until(() => ann.sockets.length >= 3, () => `two expiries; sockets: ${ann.sockets.length}`, 60_000);
      await ann.badge("live");
      await (await chat.api("Bob")).say(id, "still there?");
      await ann.sees("still there?");
    },
    { backend: { TOKEN_SECONDS: "6" }, roomcast: { ROOMCAST_AUTH__LEEWAY: "0s" } },
  ));
