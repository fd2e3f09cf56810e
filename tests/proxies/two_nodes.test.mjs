// Two nodes on one Redis behind nginx, HAProxy and Caddy, without sticky sessions: TLS, HTTP/2, keep-alive.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import http2 from "node:http2";
import https from "node:https";
import path from "node:path";
import { promisify } from "node:util";
import { KEY } from "../harness/config.mjs";
import { until, within } from "../harness/deadline.mjs";
import { Polling, enginePath } from "../harness/engine.mjs";
import { GATEWAYS, startGateway } from "../harness/gateway.mjs";
import { request } from "../harness/http.mjs";
import { publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn, recorded } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const run = promisify(execFile);
const token = tokenFor("7");
const TRANSPORTS = { polling: ["polling"], WebSocket: ["websocket"], "the upgrade": ["polling", "websocket"] };
const BATCH = 20;
const MEGABYTE = 1 << 20;

/** Two nodes on one Redis, and the proxy in front. */
async function behind(kind, s) {
  const store = await s.redis();
  const nodes = await nodesOn(s, store, 2);
  return { store, nodes, gateway: s.serve(await startGateway(kind, nodes)) };
}

const range = (count) => Array.from({ length: count }, (_, n) => n);

/** /sse by HTTP/2: `text` is what has arrived. */
function sseByHttp2(s, gateway, headers = {}) {
  const session = http2.connect(gateway.url);
  s.keep({ close: () => session.destroy() });
  const stream = session.request({ ":path": `/sse?room=room:a&token=${token}`, accept: "text/event-stream", ...headers });
  const client = { session, text: "", close: () => session.destroy() };
  stream.setEncoding("utf8");
  stream.on("response", (head) => (client.status = head[":status"]));
  stream.on("data", (text) => (client.text += text));
  for (const emitter of [session, stream]) emitter.on("error", (error) => (client.error = error));
  client.has = (text) => until(() => client.text.includes(text), () => `${text}; got ${client.status} ${client.text} ${client.error ?? ""}`);
  return client;
}

/** The status that curl gets for this body, with the given HTTP version; it writes the body without waiting. */
async function statusByCurl(version, url, file, key) {
  const answer = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", process.env.NODE_EXTRA_CA_CERTS];
  const sent = ["-H", "Expect:", "-H", `Authorization: Bearer ${key}`, "--data-binary", `@${file}`];
  const { stdout } = await run("curl", [`--http${version}`, ...answer, ...sent, url]);
  return Number(stdout);
}

const idsOf = (text) => [...text.matchAll(/^id: ?(.*)$/gm)].map(([, id]) => id);
const namesOf = (text) => [...text.matchAll(/^event: ?(.*)$/gm)].map(([, name]) => name);

for (const kind of GATEWAYS) {
  suite(kind, () => {
    for (const [name, transports] of Object.entries(TRANSPORTS)) {
      scenario(`socket.io-client by ${name}: joins, acknowledgements, binary and events in order`, async (s) => {
        const { nodes, gateway } = await behind(kind, s);
        const clients = await Promise.all(range(4).map(() => s.io(gateway, { token, transports }).connected()));
        const last = transports.at(-1);
        await until(() => clients.every((client) => client.transport() === last), last);
        const bytes = Buffer.from([0, 10, 13, 128, 255]);
        for (const client of clients) {
          await client.join("room:a");
          const [back] = await client.ask("echo", bytes);
          assert.deepEqual(Buffer.from(back), bytes);
        }
        for (const n of range(BATCH)) await published(n % 2 ? gateway : nodes[0], { room: "room:a", event: "n", data: n });
        for (const client of clients) {
          await until(() => client.argsOf("n").length === BATCH, () => `all events; got ${client.argsOf("n")}`);
          assert.deepEqual(client.argsOf("n").flat(), range(BATCH));
          assert.deepEqual([client.connects, client.disconnects], [1, []]);
        }
      });

      scenario(`socket.io-client by ${name}: recovered after its node was killed, and after the proxy has restarted`, async (s) => {
        const { store, nodes, gateway } = await behind(kind, s);
        const client = await s.io(gateway, { token, transports }).connected();
        // With the upgrade the session may move to the other node.
        await until(() => client.transport() === transports.at(-1), transports.at(-1));
        await client.join("room:a");
        await published(nodes[0], { room: "room:a", event: "n", data: 0 });
        await client.event("n");

        await recorded(store, "user:7", "room:a");
        const [killed, other] = (await indexOfSession(nodes)) === 0 ? nodes : nodes.toReversed();
        await killed.stop("SIGKILL");
        await published(other, { room: "room:a", event: "n", data: 1 });
        assert.equal(await isRecovered(client, 1), true, "after the death of the node");
        // A client that loses its connection in the middle of the upgrade notices only at its ping timeout.
        await until(() => client.socket.connected && client.transport() === transports.at(-1), transports.at(-1));

        await gateway.stop();
        await until(() => !client.socket.connected, "disconnected");
        const { connects } = client;
        await published(other, { room: "room:a", event: "n", data: 2 });
        await gateway.start();
        assert.equal(await isRecovered(client, connects), true, "after the restart of the proxy");
        // A publisher repeats what was answered 502: Caddy cannot send a body again that met the killed node.
        const last = { id: "the last", room: "room:a", event: "n", data: 3 };
        await until(async () => (await publish(gateway, last)).status === 200, "a publish that is accepted");
        await until(() => client.argsOf("n").length === 4, () => `all events; got ${client.argsOf("n")}`);
        assert.deepEqual(client.argsOf("n").flat(), range(4));
      });
    }

    scenario("plain WebSocket: events, and `since` after the proxy has restarted", async (s) => {
      const { nodes, gateway } = await behind(kind, s);
      const client = await s.ws(gateway, { token }).welcomed();
      await client.join("room:a");
      const since = await published(gateway, { room: "room:a", event: "seen", data: 0 });
      await client.event("seen");
      await gateway.stop();
      await client.ended();
      await published(nodes[1], { room: "room:a", event: "missed", data: 1 });
      await gateway.start();
      const back = await s.ws(gateway, { token }).welcomed();
      assert.equal((await back.ask({ type: "join", room: "room:a", since })).recovered, true);
      assert.equal((await back.event("missed")).data, 1);
      assert.deepEqual(back.eventsOf("seen"), []);
    });

    scenario("Server-Sent Events by HTTP/2 arrive one by one, and resume", async (s) => {
      const { gateway } = await behind(kind, s);
      const client = sseByHttp2(s, gateway);
      await until(() => client.status === 200, () => `an answer; ${client.error ?? client.status}`);
      assert.equal(client.session.alpnProtocol, "h2");
      for (const name of ["one", "two", "three"]) {
        // Nothing is published before this one has arrived: no buffer can be filled by others.
        await published(gateway, { room: "room:a", event: name, data: name });
        await client.has(`event: ${name}`);
      }
      const [first] = idsOf(client.text).slice(-3);
      client.close();
      const back = sseByHttp2(s, gateway, { "last-event-id": first });
      await back.has("event: three");
      assert.deepEqual(namesOf(back.text), ["two", "three"]);
    });

    scenario("POST /publish on kept-alive connections: every one is answered 200, and delivered once", async (s) => {
      const { nodes, gateway } = await behind(kind, s);
      const watcher = await s.ws(nodes[0], { token }).welcomed();
      await watcher.join("room:a");
      const agent = new https.Agent({ keepAlive: true, maxSockets: 8 });
      s.keep({ close: () => agent.destroy() });
      const post = (n) =>
        new Promise((resolve, reject) => {
          const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
          const sent = https.request(`${gateway.url}/publish`, { method: "POST", agent, headers }, (response) => {
            response.resume().on("end", () => resolve(response.statusCode)).on("error", reject);
          });
          sent.on("error", reject).end(JSON.stringify({ room: "room:a", event: "n", data: n }));
        });
      const count = 400;
      const statuses = await within(Promise.all(range(count).map(post)), "all answers", 40_000);
      assert.deepEqual([...new Set(statuses)], [200]);
      await until(() => watcher.eventsOf("n").length === count, () => `${count} events, got ${watcher.eventsOf("n").length}`);
      assert.equal(new Set(watcher.eventsOf("n").map(({ data }) => data)).size, count);
    });

    scenario("a body over the limit gets 413, and the session goes on", async (s) => {
      const { gateway } = await behind(kind, s);
      const file = path.join(gateway.directory, "body");
      fs.writeFileSync(file, Buffer.alloc(12 * MEGABYTE, "x"));
      const polling = await new Polling(gateway).open();
      await polling.join({ token });
      const session = gateway.url + enginePath({ sid: polling.sid });
      // By HTTP/2, Caddy 2.6 sometimes cuts an answer that comes before the body was sent.
      for (const version of kind === "caddy" ? ["1.1"] : ["2", "1.1"]) {
        for (let round = 0; round < 3; round += 1) {
          assert.equal(await statusByCurl(version, `${gateway.url}/publish`, file, KEY), 413, version);
          assert.equal(await statusByCurl(version, `${gateway.url}/publish`, file, "wrong"), 401, version);
          assert.equal(await statusByCurl(version, session, file, KEY), 413, version);
          assert.equal((await polling.post('420["echo",1]')).status, 200, "the session goes on");
        }
      }
    });

    scenario("a foreign origin is refused on every path, and the page's own is accepted", async (s) => {
      const { gateway } = await behind(kind, s);
      for (const [origin, allowed] of [["https://evil.example", false], [gateway.url, true]]) {
        const polling = await request(`${gateway.url}/socket.io/?EIO=4&transport=polling`, { headers: { origin } });
        assert.equal(polling.status, allowed ? 200 : 403, origin);
        const sse = await s.sse(gateway, { token, rooms: ["room:a"], headers: { origin } }).answered();
        assert.equal(sse.status, allowed ? 200 : 403, origin);
        const ws = s.ws(gateway, { token, origin });
        if (allowed) await ws.welcomed();
        else assert.deepEqual(await ws.ended(), { status: 403 });
      }
    });
  });
}

/**
 * Whether the client is recovered after more than this many connections. It may need several: by polling through Caddy, a
 * POST that meets a dead node ends the connection.
 */
async function isRecovered(client, connects) {
  await until(() => client.connects > connects && client.socket.connected, () => `connected again; now ${client.connects}`);
  return client.socket.recovered;
}

/** The index of the node that has the only Socket.IO session. */
async function indexOfSession(nodes) {
  const holds = async () => {
    const counts = await Promise.all(nodes.map((node) => node.connections("socketio")));
    const index = counts.findIndex((count) => count === 1);
    return counts.reduce((sum, count) => sum + count, 0) === 1 && { index };
  };
  return (await until(holds, "one node having the session")).index;
}
