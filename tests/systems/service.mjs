// What the five backends share: routes with JSON bodies, their own JWTs, and the webhook for roomcast.
import crypto from "node:crypto";
import http from "node:http";
import { until } from "../harness/deadline.mjs";

/** A refusal of the REST API. */
export class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Service {
  #routes = [];
  /** The calls of roomcast, in order. */
  calls = [];

  /** `secrets`: `{ jwt, webhook }`; `userOf` finds the user in a token's claims. */
  constructor(secrets, userOf = (claims) => claims.sub) {
    this.secrets = secrets;
    this.userOf = userOf;
    this.server = http.createServer((request, response) => this.#serve(request, response));
  }

  /** `handler({ user, claims, params, body })` answers JSON. `open`: without a token. */
  route(method, pattern, handler, { open = false } = {}) {
    const names = [...pattern.matchAll(/:(\w+)/g)].map(([, name]) => name);
    const path = new RegExp(`^${pattern.replaceAll(/:\w+/g, "([^/]+)")}$`);
    this.#routes.push({ method, path, names, handler, open });
  }

  /** `POST /roomcast`: one handler for each `type` of call. */
  webhook(handlers) {
    this.handlers = handlers;
  }

  async #serve(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("utf8");
    const { status, json } = await this.#answer(request, body).catch((error) => ({
      status: error.status ?? 500,
      json: { error: error.status ? error.message : `${error.stack}` },
    }));
    response.writeHead(status, { "content-type": "application/json", "access-control-allow-origin": "*" }).end(JSON.stringify(json));
  }

  async #answer(request, body) {
    const { pathname } = new URL(request.url, "http://backend");
    if (request.method === "POST" && pathname === "/roomcast") return this.#call(request, body);
    for (const { method, path, names, handler, open } of this.#routes) {
      const found = method === request.method && path.exec(pathname);
      if (!found) continue;
      const claims = open ? {} : this.#claims(request);
      const params = Object.fromEntries(names.map((name, at) => [name, decodeURIComponent(found[at + 1])]));
      const json = await handler({ user: this.userOf(claims), claims, params, body: body ? JSON.parse(body) : {} });
      return { status: 200, json: json ?? {} };
    }
    throw new HttpError(404, `no route for ${request.method} ${pathname}`);
  }

  async #call(request, body) {
    if (!isSigned(this.secrets.webhook, request.headers["x-roomcast-signature"], body)) throw new HttpError(401, "not signed");
    const call = JSON.parse(body);
    this.calls.push(call);
    return { status: 200, json: (await this.handlers?.[call.type]?.(call)) ?? {} };
  }

  /** The claims of a token of this service. */
  #claims(request) {
    const [head, body, tag] = (/^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1] ?? "").split(".");
    if (!tag || hmac(this.secrets.jwt, `${head}.${body}`).toString("base64url") !== tag) throw new HttpError(401, "not a token of this service");
    const claims = JSON.parse(Buffer.from(body, "base64url"));
    if (claims.exp * 1000 < Date.now()) throw new HttpError(401, "the token has expired");
    return claims;
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }
  get webhookUrl() {
    return `${this.url}/roomcast`;
  }

  async listen() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return this;
  }

  /** The first call of roomcast that the predicate matches. */
  call = (matches, what) =>
    until(() => this.calls.find(matches), () => `${what}; got: ${JSON.stringify(this.calls).slice(0, 2000)}`);

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

const hmac = (secret, text) => crypto.createHmac("sha256", secret).update(text).digest();

/** Whether `X-Roomcast-Signature` is of this body and fresh. */
function isSigned(secret, header = "", body) {
  const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header) ?? [];
  if (!tag || Math.abs(Date.now() / 1000 - Number(time)) > 300) return false;
  return crypto.timingSafeEqual(Buffer.from(tag, "hex"), hmac(secret, `${time}.${body}`));
}

/** A client of the REST API: `api(url, token).post("/path", body)`. */
export function api(url, token) {
  const call = async (method, path, body) => {
    const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
    const answer = await fetch(url + path, { method, headers, body: body && JSON.stringify(body) });
    const json = await answer.json();
    if (!answer.ok) throw Object.assign(new HttpError(answer.status, json.error), { json });
    return json;
  };
  return {
    get: (path) => call("GET", path),
    post: (path, body = {}) => call("POST", path, body),
    delete: (path) => call("DELETE", path),
  };
}

/** Publishes with `POST /publish`. */
export function httpPublisher(roomcastUrl, key) {
  const post = async (path, body) => {
    const headers = { "content-type": "application/json", authorization: `Bearer ${key}` };
    const answer = await fetch(roomcastUrl + path, { method: "POST", headers, body: JSON.stringify(body) });
    if (!answer.ok) throw new Error(`roomcast answered ${answer.status}: ${await answer.text()}`);
    return answer.json();
  };
  const get = async (path) => (await fetch(roomcastUrl + path, { headers: { authorization: `Bearer ${key}` } })).json();
  return { post, get, publish: (...events) => post("/publish", { events }) };
}
