// A person who chats: `Person` uses the page, `Api` the API.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { post, request } from "../harness/http.mjs";

// A browser, its pages and every part share the machine; all but what a test waits for goes on meanwhile.
const WITHIN = 30_000;

export class Person {
  errors = [];
  /** Every request of the page: `GET /api/…`. */
  requests = [];
  /** Every WebSocket of the page. */
  sockets = [];

  constructor(name, page) {
    this.name = name;
    this.page = page;
    page.setDefaultTimeout(WITHIN);
    page.on("pageerror", (error) => this.errors.push(error.message));
    page.on("websocket", (socket) => this.sockets.push(socket));
    page.on("request", (asked) => this.requests.push(`${asked.method()} ${new URL(asked.url()).pathname}`));
  }

  async signIn(url) {
    await this.page.goto(url);
    await this.page.locator("input[name=name]").fill(this.name);
    await this.page.getByRole("button", { name: "Come in" }).click();
    await this.badge("live");
  }

  badge = (state, timeout) => this.page.locator(`.badge[data-state=${state}]`).waitFor({ timeout });

  /** Waits until the page is no longer connected. */
  away = () => this.page.locator(".badge:not([data-state=live])").waitFor();

  /** Starts or finds the conversation with these people, and resolves with its id. */
  async startWith(...names) {
    await this.page.getByRole("button", { name: "New conversation" }).click();
    for (const name of names) await this.page.getByLabel(name).check();
    await this.page.getByRole("button", { name: "Start", exact: true }).click();
    await this.page.locator(".conversation").waitFor();
    return Number(await this.page.locator(".conversations button[aria-current=true]").getAttribute("data-conversation"));
  }

  entry = (conversationId) => this.page.locator(`.conversations button[data-conversation="${conversationId}"]`);

  async open(conversationId) {
    await this.entry(conversationId).click();
    await this.page.locator(".conversation").waitFor();
  }

  field = () => this.page.locator(".composer input");

  async say(text) {
    await this.field().fill(text);
    await this.field().press("Enter");
  }

  message = (text) => this.page.locator(".messages li", { has: this.page.locator(`.text:text-is(${JSON.stringify(text)})`) });
  sees = (text, timeout) => this.message(text).waitFor({ timeout });
  /** Waits until this user's own message has this status: "sending", "failed", "sent" or "read". */
  seesStatus = (text, status, timeout) => this.page.locator(`.messages li[data-status=${status}]`, { has: this.page.locator(`.text:text-is(${JSON.stringify(text)})`) }).waitFor({ timeout });
  texts = () => this.page.locator(".messages .text").allTextContents();

  /** The unread count of a conversation; 0 where none is shown. */
  async unread(conversationId) {
    const [count = "0"] = await this.entry(conversationId).locator(".unread").allTextContents();
    return Number(count);
  }
  async seesUnread(conversationId, count, deadline = WITHIN) {
    let seen;
    const isSo = async () => (seen = await this.unread(conversationId)) === count;
    await until(isSo, () => `${this.name} sees ${seen} unread instead of ${count}`, deadline);
  }

  asked = (what) => this.requests.filter((asked) => asked === what).length;
}

export class Api {
  static async signIn(url, name) {
    const answer = await post(`${url}/api/sign-in`, { name });
    assert.equal(answer.status, 200, answer.text);
    return Object.assign(new Api(), { url, ...answer.json() });
  }

  #headers = () => ({ authorization: `Bearer ${this.token}` });
  get = async (path) => this.#answer(await request(`${this.url}/api${path}`, { headers: this.#headers() }));
  post = async (path, body) => this.#answer(await post(`${this.url}/api${path}`, body, this.#headers()));

  #answer(answer) {
    assert.ok(answer.status < 300, `${answer.status} ${answer.text}`);
    return answer.json();
  }

  /** The id of the conversation with these users of the API. */
  startWith = async (...others) => (await this.post("/conversations", { userIds: others.map(({ user }) => user.id) })).id;
  say = (conversationId, text) => this.post(`/conversations/${conversationId}/messages`, { text, clientId: `api ${text}` });
}
