// A stub of your API: it signs tokens, publishes what users say, and answers what roomcast asks. Nothing but Node.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const secret = (name) => readFileSync(`/secrets/${name}`, "utf8").trim();
const [JWT_SECRET, PUBLISH_KEY, BACKEND_SECRET] = ["jwt_secret", "publish_keys", "backend_secret"].map(secret);
const MAX_BODY = 64 * 1024;
/** The signature of a request is not older than this, in seconds. */
const MAX_AGE = 300;

const hmac = (key, text, encoding) => createHmac("sha256", key).update(text).digest(encoding);
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

function tokenFor(user) {
  const input = `${base64url({ alg: "HS256", typ: "JWT" })}.${base64url({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600 })}`;
  return `${input}.${hmac(JWT_SECRET, input, "base64url")}`;
}

function isFromRoomcast(header, body) {
  const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header ?? "") ?? [];
  if (!tag || Math.abs(Date.now() / 1000 - time) > MAX_AGE) return false;
  return timingSafeEqual(Buffer.from(tag), Buffer.from(hmac(BACKEND_SECRET, `${time}.${body}`, "hex")));
}

async function bodyOf(request) {
  let body = "";
  for await (const chunk of request.setEncoding("utf8")) {
    body += chunk;
    if (body.length > MAX_BODY) throw Object.assign(new Error("the body is too big"), { status: 413 });
  }
  return body;
}

const ROUTES = {
  "GET /": () => ({ page: readFileSync(new URL("page.html", import.meta.url)) }),

  // Your API knows who asks; the stub believes what it is told.
  "GET /token": (_, url) => ({ json: { token: tokenFor(url.searchParams.get("user") || "guest") } }),

  "POST /messages": async (request) => {
    const { room, text } = JSON.parse(await bodyOf(request));
    const answer = await fetch(`${process.env.ROOMCAST_URL}/publish`, {
      method: "POST",
      headers: { authorization: `Bearer ${PUBLISH_KEY}`, "content-type": "application/json" },
      body: JSON.stringify({ room, event: "message", data: { text } }),
    });
    return { status: answer.status, json: await answer.json() };
  },

  "POST /roomcast": async (request) => {
    const body = await bodyOf(request);
    if (!isFromRoomcast(request.headers["x-roomcast-signature"], body)) return { status: 401, json: {} };
    const { type, user, room } = JSON.parse(body);
    console.log(type, user, room ?? "");
    if (type === "join") return { json: room === "chat:secret" ? { allow: false, error: "members only" } : { allow: true } };
    return { json: {} };
  },
};

createServer(async (request, response) => {
  const url = new URL(request.url, "http://api");
  try {
    const { status = 200, json, page } = (await ROUTES[`${request.method} ${url.pathname}`]?.(request, url)) ?? { status: 404, json: {} };
    response.writeHead(status, { "content-type": page ? "text/html; charset=utf-8" : "application/json" }).end(page ?? JSON.stringify(json));
  } catch (error) {
    response.writeHead(error.status ?? 400, { "content-type": "application/json" }).end(JSON.stringify({ error: error.message }));
  }
}).listen(3000);
