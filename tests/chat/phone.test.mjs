// examples/chat on a phone, with more people and conversations than fit on its screen.
import assert from "node:assert/strict";
import { test } from "node:test";
import { withChat } from "./stage.mjs";

const PHONE = { viewport: { width: 390, height: 844 }, hasTouch: true };
const PEOPLE = 60;
const LONG = "unbroken".repeat(11);
const numbers = Array.from({ length: PEOPLE }, (_, at) => at + 1);

const nothingIsCutOff = async ({ page }, where) => {
  const sizes = () => page.evaluate(() => [document.scrollingElement.scrollWidth, document.scrollingElement.scrollHeight]);
  assert.deepEqual(await sizes(), [PHONE.viewport.width, PHONE.viewport.height], `${where}: the page itself scrolls`);
};

/** Wholly on the screen, and nothing lies over it. */
const isOnScreen = async (locator, what) => {
  const { x, y, width, height } = await locator.boundingBox();
  assert.ok(x >= 0 && y >= 0 && x + width <= PHONE.viewport.width && y + height <= PHONE.viewport.height, `${what} is at ${[x, y, width, height]}`);
  await locator.click({ trial: true });
};

test("sixty people and their conversations are within reach on a screen of 390 pixels", { timeout: 180_000 }, () =>
  withChat(async (chat) => {
    const ann = await chat.person("Ann", PHONE);
    const others = [];
    for (const number of numbers) others.push(await chat.api(`${"Longname ".repeat(number % 4)}Person ${number}`));
    const me = (await others[0].get("/users")).find(({ name }) => name === "Ann");
    for (const other of others) other.talk = (await other.post("/conversations", { userIds: [me.id] })).id;
    await others[0].say(others[0].talk, LONG);
    await ann.page.reload();
    await ann.badge("live");
    await nothingIsCutOff(ann, "the conversations");

    const start = ann.page.getByRole("button", { name: "Start", exact: true });
    await ann.page.getByRole("button", { name: "New conversation" }).tap();
    for (const number of [1, PEOPLE]) await ann.page.getByLabel(new RegExp(`Person ${number}$`)).check();
    await nothingIsCutOff(ann, "the choice of people");
    await isOnScreen(start, "the button to start");
    const last = ann.page.locator(".conversations li").last();
    await last.scrollIntoViewIfNeeded();
    await isOnScreen(last, "the last conversation");
    await start.tap();
    await ann.page.locator(".conversation").waitFor();
    await nothingIsCutOff(ann, "a conversation");
    await isOnScreen(ann.field(), "the field");
    await isOnScreen(ann.page.locator(".badge"), "the badge");

    await ann.page.getByRole("button", { name: "All conversations" }).tap();
    await ann.entry(others[0].talk).tap();
    await ann.sees(LONG);
    await nothingIsCutOff(ann, "an unbroken text");
    await ann.say("hello");
    await ann.sees("hello");
  }),
);
