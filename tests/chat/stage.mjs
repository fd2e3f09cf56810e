// examples/chat as a visitor runs it: the built page, its backend, roomcast with its file, and people in real browsers.
import assert from "node:assert/strict";
import crypto from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after } from "node:test";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { startProxy } from "../harness/proxy.mjs";
import { Api, Person } from "./person.mjs";

export const EXAMPLE = path.resolve(import.meta.dirname, "../../examples/chat");
/** Longer than the page's steps to "offline" and its slowest reconnection. */
export const PATIENCE = 20_000;

// One for all tests of a file; each has windows of its own.
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
      ROOMCAST_KEY: this.#secrets.key,
      ROOMCAST_WEBHOOK_SECRET: this.#secrets.webhook,
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
    );
  }

  /** Somebody signed in, in a window of their own. */
  async person(name) {
    browser ??= startBrowser();
    const context = this.keep(await (await browser).newContext());
    const person = new Person(name, await context.newPage());
    this.#people.push(person);
    await person.signIn(this.url);
    return person;
  }

  /** Somebody who uses the API alone. */
  api = (name) => Api.signIn(this.url, name);

  /** The number of one series of roomcast's /metrics, 0 where it is missing. */
  async metric(series) {
    const { text } = await request(`http://127.0.0.1:${this.ports.roomcast}/metrics`);
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
    return line ? Number(line.slice(series.length + 1)) : 0;
  }

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

  said = () => ["roomcast", "backend"].map((name) => `--- ${name} said ---\n${this[name]?.output ?? ""}`).join("\n");
}

/**
 * Everything started. `proxied`: the pages reach roomcast through `chat.proxy`, which can be cut; `roomcast`, `backend`:
 * more of their environments.
 */
async function startChat({ proxied = false, ...settings } = {}) {
  const ports = { backend: await freePort(), roomcast: await freePort() };
  const chat = new Chat(ports, proxied ? await startProxy({ port: ports.roomcast }) : undefined, settings);
  // Settled, all of them: what did start must be ended too.
  const started = await Promise.allSettled([chat.startBackend(), chat.startRoomcast()]);
  const failed = started.find(({ status }) => status === "rejected");
  if (!failed) return chat;
  await chat.end().catch(() => {});
  throw failed.reason;
}

/** Runs `body(chat)` and ends everything; a failure shows what the parts said. */
export async function withChat(body, settings) {
  const chat = await startChat(settings);
  let failure;
  try {
    await body(chat);
  } catch (error) {
    failure = error;
  }
  await chat.end().catch((error) => (failure ??= error));
  if (!failure) return;
  console.error(chat.said());
  throw failure;
}
