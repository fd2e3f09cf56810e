// The dot and the last seen time: told by roomcast to the backend, and by the backend to those concerned.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connectIo } from "../harness/clients.mjs";
import { until } from "../harness/deadline.mjs";
import { PATIENCE, withChat } from "./stage.mjs";

const TIMEOUT = 90_000;
const SOON_GONE = { roomcast: { ROOMCAST_PRESENCE__GRACE: "1s" } };

/** Until the entry's dot is lit, or not. */
const seesOnline = (person, id, online, deadline) =>
  until(async () => (await person.entry(id).locator(".dot").getAttribute("data-online")) === String(online), `${person.name} sees online = ${online}`, deadline);
const header = (person, text) => person.page.locator(".presence", { hasText: text }).waitFor({ timeout: PATIENCE });

test("online, still online with one of two windows, then last seen; nobody else is told", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [asAnn, asBob, asCleo, asEve] = await Promise.all(["Ann", "Bob", "Cleo", "Eve"].map(chat.api));
    const id = await asAnn.startWith(asBob);
    await asAnn.startWith(asCleo);
    const ann = await chat.person("Ann");
    await ann.open(id);
    await seesOnline(ann, id, false);
    const listen = async ({ realtimeUrl, token }) => chat.keep(connectIo({ url: realtimeUrl }, { token })).connected();
    const [told, stranger] = [await listen(asAnn), await listen(asEve)];
    const saidOf = ({ user }) => told.argsOf("presence").filter(([{ userId }]) => userId === user.id).map(([{ online }]) => online);
    const cleo = await listen(asCleo);

    const bob = await chat.person("Bob");
    await seesOnline(ann, id, true);
    await header(ann, "online");
    const second = await chat.person("Bob");
    await bob.page.close();
    const left = Date.now();
    // Cleo goes after Bob's first window did; once she is gone, that window's grace is over too.
    cleo.close();
    await until(() => saidOf(asCleo).includes(false), "Cleo is offline");
    assert.deepEqual(saidOf(asBob), [true]);
    await second.open(id);
    await ann.say("still here?");
    await ann.seesStatus("still here?", "read");

    await second.page.close();
    await seesOnline(ann, id, false, PATIENCE);
    await header(ann, /last seen today at/);
    assert.deepEqual(saidOf(asBob), [true, false]);
    const lastSeenOf = async ({ user }) => (await asAnn.get("/presence")).find(({ userId }) => userId === user.id).lastSeen;
    const lastSeen = await lastSeenOf(asBob);
    assert.ok(Date.parse(lastSeen) >= left && Date.parse(lastSeen) <= Date.now(), lastSeen);
    assert.deepEqual(stranger.argsOf("presence"), []);

    // The backend remembers, whatever becomes of roomcast and its memory.
    await chat.roomcast.stop();
    await chat.startRoomcast();
    await ann.page.reload();
    await ann.badge("live", PATIENCE);
    await ann.open(id);
    await header(ann, /last seen today at/);
    assert.equal(Date.parse(await lastSeenOf(asBob)), Date.parse(lastSeen));
  }, SOON_GONE));

test("roomcast was away: who is there is shown as there again; a reload is no absence", { timeout: TIMEOUT }, () =>
  withChat(async (chat) => {
    const [ann, bob] = [await chat.person("Ann"), await chat.person("Bob")];
    const id = await ann.startWith("Bob");
    await seesOnline(ann, id, true);
    await chat.roomcast.stop();
    await ann.badge("offline", PATIENCE);
    await seesOnline(ann, id, false, PATIENCE);
    await chat.startRoomcast();
    await Promise.all([ann, bob].map((person) => person.badge("live", PATIENCE)));
    await seesOnline(ann, id, true, PATIENCE);

    const { realtimeUrl, token } = await chat.api("Ann");
    const told = await chat.keep(connectIo({ url: realtimeUrl }, { token })).connected();
    await bob.page.reload();
    await bob.badge("live");
    await bob.open(id);
    await bob.say("here I am");
    await until(() => told.argsOf("conversation:update").length > 0, "the message");
    assert.deepEqual(told.argsOf("presence").filter(([{ online }]) => !online), []);
  }));
