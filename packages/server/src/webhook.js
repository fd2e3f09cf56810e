// What roomcast asks the backend, and announces to it: signatures, handlers, and the servers they run in.

import { variable } from "./environment.js";

/** @import { AnyEvents, Call, JoinAnswer, NodeRequest, NodeResponse, Webhook, WebhookOptions } from "./types.js" */

const TOLERANCE_SECONDS = 300;
/** A forwarded event is at most 1 MB by default, and its claims come on top. */
const MAX_BODY_BYTES = 4 << 20;
const encoder = new TextEncoder();
const NOTICES = /** @type {const} */ (["connect", "disconnect", "online", "offline", "occupied", "vacated"]);

/** A request that roomcast did not sign, or not just now. */
export class SignatureError extends Error {
  status = 401;

  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = "SignatureError";
  }
}

/**
 * Checks `X-Roomcast-Signature` in constant time, and resolves with what roomcast sent. Rejects with a SignatureError.
 * @param {string | Uint8Array} body as it came
 * @param {string | null | undefined} signature the header
 * @param {string | string[]} secret `backend.secret`, or several while it is being changed
 * @param {{ tolerance?: number, now?: number }} [options] `tolerance` in seconds, default 300; `now` in milliseconds
 * @returns {Promise<Call>}
 */
export async function verifyWebhook(body, signature, secret, { tolerance = TOLERANCE_SECONDS, now = Date.now() } = {}) {
  const [, time, tag] = /^t=(\d{1,15}),v1=([0-9a-f]{64})$/.exec(signature ?? "") ?? [];
  if (!time || !tag) throw new SignatureError("X-Roomcast-Signature is missing, or not of the form t=…,v1=…");
  const bytes = typeof body === "string" ? encoder.encode(body) : body;
  const matches = await Promise.all([secret].flat().map((each) => isSigned(each, time, tag, bytes)));
  if (!matches.includes(true)) throw new SignatureError("X-Roomcast-Signature is not of this body and secret");
  if (Math.abs(now / 1000 - Number(time)) > tolerance) throw new SignatureError(`it was signed more than ${tolerance} s ago, or ahead`);
  return JSON.parse(new TextDecoder().decode(bytes));
}

/**
 * The header for a body, as roomcast signs it: for tests of a backend.
 * @param {string} body
 * @param {string} secret
 * @param {number} [now] milliseconds
 */
export async function signWebhook(body, secret, now = Date.now()) {
  const time = Math.floor(now / 1000);
  const tag = await crypto.subtle.sign("HMAC", await hmacKey(secret), encoder.encode(`${time}.${body}`));
  return `t=${time},v1=${Array.from(new Uint8Array(tag), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** @param {string} secret */
function hmacKey(secret) {
  if (!secret) throw new TypeError("there is no secret: pass `secret`, or set ROOMCAST_BACKEND__SECRET");
  return crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign", "verify"]);
}

/**
 * @param {string} secret
 * @param {string} time
 * @param {string} tag
 * @param {Uint8Array} body
 */
async function isSigned(secret, time, tag, body) {
  const start = encoder.encode(`${time}.`);
  const signed = new Uint8Array(start.length + body.length);
  signed.set(start);
  signed.set(body, start.length);
  const expected = Uint8Array.from(tag.match(/../g) ?? [], (hex) => parseInt(hex, 16));
  // `verify` of Web Crypto compares in constant time.
  return crypto.subtle.verify("HMAC", await hmacKey(secret), expected, signed);
}

/**
 * Read at a call, since builds such as Next's load modules where no secrets are.
 * @param {{ secret?: string | string[] }} options
 */
function secretOf({ secret = variable("ROOMCAST_BACKEND__SECRET") }) {
  if (!secret || secret.length === 0) throw new TypeError("there is no secret: pass `secret`, or set ROOMCAST_BACKEND__SECRET");
  return secret;
}

/**
 * The endpoint for `backend.url`. `ClientEvents` are what clients emit and `[[on]]` rules forward, `Events` what the
 * answers send.
 * @template [ClientEvents=AnyEvents]
 * @template [Events=AnyEvents]
 * @param {WebhookOptions<NoInfer<ClientEvents>, NoInfer<Events>>} options
 * @returns {Webhook}
 */
export function createWebhook(options) {
  const { tolerance, onError = (error) => console.error("roomcast's webhook:", error) } = options;

  /** @type {Webhook["handle"]} */
  async function handle(body, signature) {
    let call;
    try {
      call = await verifyWebhook(body, signature, secretOf(options), { tolerance });
      return reply(200, await answer(call, options));
    } catch (error) {
      if (error instanceof SignatureError) return reply(error.status, { error: error.message });
      onError(error, call);
      return reply(500, { error: "the handler failed" });
    }
  }

  /** @type {Webhook["fetch"]} */
  const answerFetch = async (request) => {
    if (request.method !== "POST") return respond(reply(405, { error: "POST only" }));
    if (Number(request.headers.get("content-length")) > MAX_BODY_BYTES) return respond(TOO_BIG);
    const body = new Uint8Array(await request.arrayBuffer());
    return respond(await handle(body, request.headers.get("x-roomcast-signature")));
  };

  /** @type {Webhook["express"]} */
  const express = async (request, response) => {
    const { status, body } = request.method === "POST" ? await handleNode(request) : reply(405, { error: "POST only" });
    response.statusCode = status;
    response.setHeader("content-type", "application/json");
    response.end(body);
  };

  /** @param {NodeRequest} request */
  async function handleNode(request) {
    try {
      const body = await rawBody(request);
      return body ? await handle(body, header(request)) : TOO_BIG;
    } catch (error) {
      onError(error);
      return reply(500, { error: "the body could not be read" });
    }
  }

  /** @type {Webhook["fastify"]} */
  const fastify = async (app, { path = "/roomcast" } = {}) => {
    // Only in this plugin's scope: the signature is over the bytes, so the body is taken as it came.
    app.removeContentTypeParser("application/json");
    app.addContentTypeParser("application/json", { parseAs: "buffer" }, (/** @type {any} */ _, /** @type {any} */ body, /** @type {any} */ done) => done(null, body));
    app.post(path, { bodyLimit: MAX_BODY_BYTES }, async (/** @type {any} */ request, /** @type {any} */ answering) => {
      const { status, body } = await handle(request.body ?? "", header(request));
      return answering.code(status).type("application/json").send(body);
    });
  };

  return { fetch: answerFetch, express, fastify, handle };
}

/**
 * @param {Call} call
 * @param {WebhookOptions<any, any>} handlers
 */
async function answer(call, handlers) {
  switch (call.type) {
    case "join":
      return joinAnswer((await handlers.join?.(call)) ?? false);
    case "event": {
      const handler = handlers.events && Object.hasOwn(handlers.events, call.event) ? handlers.events[call.event] : undefined;
      return handler ? ((await handler(call)) ?? {}) : { error: `the backend has no handler for "${call.event}"` };
    }
    default:
      // A later roomcast may announce more.
      if (NOTICES.includes(call.type)) await handlers[call.type]?.(/** @type {any} */ (call));
      return {};
  }
}

/** @param {JoinAnswer} allowed */
const joinAnswer = (allowed) => (typeof allowed === "object" ? allowed : { allow: allowed === true });

/**
 * @param {number} status
 * @param {object} json
 */
const reply = (status, json) => ({ status, body: JSON.stringify(json) });
const TOO_BIG = reply(413, { error: "the body is too big" });

/** @param {{ status: number, body: string }} reply */
const respond = ({ status, body }) => new Response(body, { status, headers: { "content-type": "application/json" } });

/** @param {Pick<NodeRequest, "headers">} request */
const header = ({ headers }) => [headers["x-roomcast-signature"]].flat()[0];

/**
 * The bytes of the body: those that a parser before kept (express.raw(), Nest's `rawBody`), or from the connection.
 * `undefined` when there are too many.
 * @param {NodeRequest & { rawBody?: unknown, body?: unknown }} request
 */
async function rawBody(request) {
  for (const kept of [request.rawBody, request.body]) {
    if (kept instanceof Uint8Array || typeof kept === "string") return kept;
  }
  if (request.body !== undefined) throw new Error("the body was parsed already: put the webhook before express.json(), or in Nest set `rawBody: true`");
  const chunks = [];
  let length = 0;
  for await (const chunk of request) {
    length += chunk.length;
    if (length > MAX_BODY_BYTES) return undefined;
    chunks.push(chunk);
  }
  const body = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return body;
}
