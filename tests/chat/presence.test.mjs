// The online dot and the last seen time: roomcast notifies the backend, and the backend the users concerned.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connectIo } from "../harness/clients.mjs";
import { until } from "../harness/deadline.mjs";
import { SLOW, withChat } from "./stage.mjs";

const TIMEOUT = 240_000;
/** Of today, unless it is midnight just now. */
const LAST_SEEN = /last seen (today|.*\d{4}) at/;
const SHORT_GRACE = { roomcast: { ROOMCAST_PRESENCE__GRACE: "1s" } };

/** Waits until the entry's dot shows this. */
const seesOnline = (person, id, online, deadline = SLOW) =>
  until(async () => (await person.entry(id).locator(".dot").getAttribute("data-online")) === String(online), `${person.name} sees online = ${online}`, deadline);
const header = (person, text) => person.page.locator(".presence", { hasText: text }).waitFor({ timeout: SLOW });

test("a user is online while a window is open, then has a last seen time; other users are not notified", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [asAnn, asBob, asCleo, asEve] = await Promise.all(["Ann", "Bob", "Cleo", "Eve"].map(chat.api));
    const id = await asAnn.startWith(asBob);
    await asAnn.startWith(asCleo);
    const ann = await chat.person("Ann");
    await ann.open(id);
    await seesOnline(ann, id, false);
    const listen = async ({ realtimeUrl, token }) => chat.keep(connectIo({ url: realtimeUrl }, { token })).connected();
    const [listener, stranger] = [await listen(asAnn), await listen(asEve)];
    const saidOf = ({ user }) => listener.argsOf("presence").filter(([{ userId }]) => userId === user.id).map(([{ online }]) => online);
    const cleo = await listen(asCleo);

    const bob = await chat.person("Bob");
    await seesOnline(ann, id, true);
    await header(ann, "online");
    const second = await chat.person("Bob");
    await bob.page.close();
    const left = Date.now();
    // Cleo leaves after Bob's first window; once she is offline, the grace period of that window is over too.
    cleo.close();
    await until(() => saidOf(asCleo).includes(false), "Cleo is offline");
    assert.deepEqual(saidOf(asBob), [true]);
    await second.open(id);
    await ann.say("still here?");
    await ann.seesStatus("still here?", "read");

    await second.page.close();
    await seesOnline(ann, id, false, SLOW);
    await header(ann, LAST_SEEN);
    await until(() => saidOf(asBob).length >= 2, "the other connection of Ann");
    assert.deepEqual(saidOf(asBob), [true, false]);
    const lastSeenOf = async ({ user }) => (await asAnn.get("/presence")).find(({ userId }) => userId === user.id).lastSeen;
    const lastSeen = await lastSeenOf(asBob);
    assert.ok(Date.parse(lastSeen) >= left && Date.parse(lastSeen) <= Date.now() + 5, lastSeen);
    assert.deepEqual(stranger.argsOf("presence"), []);

    // The backend keeps it, also when roomcast restarts.
    await chat.roomcast.stop();
    await chat.startRoomcast();
    await ann.page.reload();
    await ann.badge("live", SLOW);
    await ann.open(id);
    await header(ann, LAST_SEEN);
    assert.equal(Date.parse(await lastSeenOf(asBob)), Date.parse(lastSeen));
  }, SHORT_GRACE));

test("users are shown online again after a restart of roomcast, and a page reload is not an absence", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    await seesOnline(ann, id, true);
    await chat.roomcast.stop();
    await ann.badge("offline", SLOW);
    await seesOnline(ann, id, false, SLOW);
    await chat.startRoomcast();
    await Promise.all([ann, bob].map((person) => person.badge("live", SLOW)));
    await seesOnline(ann, id, true, SLOW);

    const { realtimeUrl, token } = await chat.api("Ann");
    const listener = await chat.keep(connectIo({ url: realtimeUrl }, { token })).connected();
    await bob.page.reload();
    await bob.badge("live");
    await bob.open(id);
    await bob.say("here I am");
    await until(() => listener.argsOf("conversation:update").length > 0, "the message");
    assert.deepEqual(listener.argsOf("presence").filter(([{ online }]) => !online), []);
  }, { roomcast: { ROOMCAST_PRESENCE__GRACE: "20s" } }));
