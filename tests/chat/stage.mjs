// examples/chat as a whole: the built page, its backend, roomcast with its file, and people in real browsers.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after } from "node:test";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon, metricOf } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { startProxy } from "../harness/proxy.mjs";
import { runAndEnd } from "../harness/scenario.mjs";
import { Api, Person } from "./person.mjs";

export const EXAMPLE = path.resolve(import.meta.dirname, "../../examples/chat");
/** Milliseconds for slow steps: longer than the page takes to go offline, and than its slowest reconnection. */
export const SLOW = 40_000;

// One browser for all tests of a file; each test opens its own windows.
let browser;
after(async () => (await browser)?.close());

const secret = () => crypto.randomBytes(32).toString("base64url");

export class Chat {
  #secrets = { jwt: secret(), key: secret(), webhook: secret() };
  #directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-chat-"));
  #people = [];
  #kept = [];

  constructor(ports, proxy, settings) {
    this.ports = ports;
    this.proxy = proxy;
    this.settings = settings;
    this.url = `http://127.0.0.1:${ports.backend}`;
  }

  webhookSecret = () => this.#secrets.webhook;

  async startRoomcast() {
    this.roomcast = new Daemon(["serve", "--config", path.join(EXAMPLE, "roomcast.toml")], {
      JWT_SECRET: this.#secrets.jwt,
      ROOMCAST_PUBLISH__KEYS: this.#secrets.key,
      ROOMCAST_BACKEND__SECRET: this.#secrets.webhook,
      ROOMCAST_BACKEND__URL: `${this.url}/roomcast`,
      ROOMCAST_LISTEN: `127.0.0.1:${this.ports.roomcast}`,
      ROOMCAST_CORS__ORIGINS: this.url,
      ...this.settings.roomcast,
    });
    await this.#answers("roomcast", `http://127.0.0.1:${this.ports.roomcast}/health`);
  }

  async startBackend() {
    const environment = {
      PORT: String(this.ports.backend),
      DATABASE: path.join(this.#directory, "chat.sqlite"),
      JWT_SECRET: this.#secrets.jwt,
      ROOMCAST_PUBLISH__KEYS: this.#secrets.key,
      ROOMCAST_BACKEND__SECRET: this.#secrets.webhook,
      ROOMCAST_URL: `http://127.0.0.1:${this.ports.roomcast}`,
      ROOMCAST_PUBLIC_URL: this.proxy?.url ?? `http://127.0.0.1:${this.ports.roomcast}`,
      ...this.settings.backend,
    };
    this.backend = new Daemon([path.join(EXAMPLE, "backend/server.js")], environment, process.execPath);
    await this.#answers("backend", `${this.url}/health`);
  }

  async #answers(name, url) {
    const part = this[name];
    await until(
      async () => (part.exit ? Promise.reject(new Error(`${name} ended: ${JSON.stringify(part.exit)} ${part.output}`)) : (await request(url).catch(() => undefined))?.status === 200),
      () => `${name} answering: ${part.output}`,
      SLOW,
    );
  }

  /** A signed-in person in a new window, with these settings of Playwright's. */
  async person(name, settings) {
    browser ??= startBrowser();
    const context = this.keep(await (await browser).newContext(settings));
    const person = new Person(name, await context.newPage());
    this.#people.push(person);
    await person.signIn(this.url);
    return person;
  }

  /** A person who uses only the API. */
  api = (name) => Api.signIn(this.url, name);

  metric = (series) => metricOf(`http://127.0.0.1:${this.ports.roomcast}`, series);

  /** Closes `thing` before everything else ends. */
  keep = (thing) => (this.#kept.push(thing), thing);

  async end() {
    await Promise.all(this.#kept.map((thing) => thing.close()));
    for (const part of [this.backend, this.roomcast]) if (part && !part.exit) await part.stop();
    this.proxy?.close();
    fs.rmSync(this.#directory, { recursive: true, force: true });
    this.roomcast?.assertNoPanic();
    for (const { name, errors } of this.#people) assert.deepEqual(errors, [], `errors on the page of ${name}`);
  }

  output = () => ["roomcast", "backend"].map((name) => `--- output of ${name} ---\n${this[name]?.output ?? ""}`).join("\n");
}

/**
 * Starts everything. With `proxied` the pages reach roomcast through `chat.proxy`, which can be cut; `roomcast` and
 * `backend` are added to their environments.
 */
async function startChat({ proxied = false, ...settings } = {}) {
  const ports = { backend: await freePort(), roomcast: await freePort() };
  const chat = new Chat(ports, proxied ? await startProxy({ port: ports.roomcast }) : undefined, settings);
  // All settled, so that the parts that did start are ended.
  const started = await Promise.allSettled([chat.startBackend(), chat.startRoomcast()]);
  const failed = started.find(({ status }) => status === "rejected");
  if (!failed) return chat;
  await chat.end().catch(() => {});
  throw failed.reason;
}

/** Runs `body(chat)` and ends everything; a failure prints the output of the parts. */
export async function withChat(body, settings) {
  await runAndEnd(await startChat(settings), body, "chat");
}
