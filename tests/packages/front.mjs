// An HTTP server in front of roomcast that a test tells what to do with each request: lose it, lose its answer, refuse it.
import http from "node:http";

class Front {
  /** Bodies of the requests, in order. */
  requests = [];
  /** What happens to the next requests; after them all pass: "pass", "refuse", "lose", "lose the answer", "hang", or an answer. */
  faults = [];
  #hanging = [];

  constructor(target) {
    this.target = target;
    this.server = http.createServer((request, response) => {
      // A client that gave up, or a node that is away: the connection ends.
      this.#serve(request, response).catch(() => request.socket.destroy());
    });
  }

  async #serve(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    this.requests.push(body.toString("utf8"));
    const fault = this.faults.shift() ?? "pass";
    if (fault === "lose") return request.socket.destroy();
    if (typeof fault === "object") return response.writeHead(fault.status, fault.headers).end(fault.body ?? "");
    const answer = await fetch(this.target + request.url, { method: request.method, headers: { authorization: request.headers.authorization, "content-type": request.headers["content-type"] }, body });
    const text = await answer.text();
    if (fault === "lose the answer") return request.socket.destroy();
    if (fault === "hang") return this.#hanging.push(response);
    response.writeHead(answer.status, { "content-type": "application/json" }).end(text);
  }

  get url() {
    return `http://127.0.0.1:${this.server.address().port}`;
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

export async function startFront(target) {
  const front = new Front(target);
  await new Promise((resolve) => front.server.listen(0, "127.0.0.1", resolve));
  return front;
}
