// A small backend: it records the webhooks of roomcast, checks their signatures, and answers as the test says.
import crypto from "node:crypto";
import http from "node:http";
import { until } from "./deadline.mjs";

/** The secret that the requests are signed with. */
export const SECRET = "a secret of at least 32 bytes, for tests";

class Backend {
  calls = [];
  connections = 0;
  /** Answers a call: an object is sent as JSON with 200, `{ status, body }` as it is, and a function gets the response. */
  answer = () => ({});

  constructor() {
    this.server = http.createServer((request, response) => this.#serve(request, response));
    this.server.on("connection", () => (this.connections += 1));
  }

  async #serve(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks).toString("utf8");
    const call = JSON.parse(body);
    this.calls.push({ ...call, raw: body, signed: isSigned(request.headers["x-roomcast-signature"], body) });
    const answer = await this.answer(call);
    if (typeof answer === "function") return answer(response);
    const { status = 200, body: text = JSON.stringify(answer) } = typeof answer?.body === "string" ? answer : {};
    response.writeHead(status, { "content-type": "application/json" }).end(text);
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}/roomcast`;
  }
  /** The `backend` table of a node's configuration. */
  config = (more) => ({ backend: { url: this.url, secret: SECRET, notify: [], ...more } });
  of = (type) => this.calls.filter((call) => call.type === type);
  call = (type, count = 1) => until(() => this.of(type)[count - 1], () => `call ${count} of type ${type}; got ${this.calls.map((call) => call.type)}`);

  /** Stops listening and breaks all connections. */
  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

function isSigned(header, body) {
  const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header) ?? [];
  if (Math.abs(Number(time) - Date.now() / 1000) > 60) return false;
  return crypto.createHmac("sha256", SECRET).update(`${time}.${body}`).digest("hex") === tag;
}

/** `port` 0 is any; a test that starts it again on the same port passes one of `freePort`. */
export async function startBackend(port = 0) {
  const backend = new Backend();
  await new Promise((resolve) => backend.server.listen(port, "127.0.0.1", resolve));
  return backend;
}
