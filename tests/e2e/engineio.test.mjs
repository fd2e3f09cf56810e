// Engine.IO 4, byte by byte, as the reference server behaves.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { Polling, SEPARATOR, enginePath, engineSocket, joinedSocket } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { CLOSE, frame } from "../harness/raw.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const get = (node, parts, options) => request(node.url + enginePath(parts), options);
const gone = async (polling) => assert.deepEqual((await polling.get()).json(), { code: 1, message: "Session ID unknown" });

suite("Engine.IO", () => {
  scenario("handshake: the open packet and headers of both transports", async ({ node, keep }) => {
    const one = await node();
    const answer = await get(one, { t: "r5iaxsb9" });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers["content-type"], "text/plain; charset=UTF-8");
    assert.equal(answer.headers["cache-control"], "no-store");
    const { sid, ...rest } = JSON.parse(answer.text.slice(1));
    assert.match(sid, /^[\w-]{20}$/);
    assert.deepEqual(rest, { upgrades: ["websocket"], pingInterval: 25000, pingTimeout: 20000, maxPayload: 1000000 });
    const socket = keep(await engineSocket(one));
    const open = JSON.parse((await socket.text((text) => text[0] === "0")).slice(1));
    assert.deepEqual(open.upgrades, []);
    assert.doesNotMatch(socket.answer, /sec-websocket-extensions/i);
    const only = await node({ socketio: { transports: ["polling"] } });
    assert.deepEqual(JSON.parse((await get(only)).text.slice(1)).upgrades, []);
  });

  scenario("invalid requests get the reference server's error codes", async ({ node, keep }) => {
    const one = await node();
    const unknown = { code: 1, message: "Session ID unknown" };
    const version = { code: 5, message: "Unsupported protocol version" };
    const cases = [
      [{ transport: "nope" }, {}, { code: 0, message: "Transport unknown" }],
      [{ transport: "webtransport" }, {}, { code: 0, message: "Transport unknown" }],
      [{ transport: "" }, {}, { code: 0, message: "Transport unknown" }],
      ...["x", "__proto__", "constructor", "a".repeat(10_000), "AAAAAAAAAAAAAAAAAAAA"].map((sid) => [{ sid }, {}, unknown]),
      [{}, { method: "POST", body: "40" }, { code: 2, message: "Bad handshake method" }],
      [{}, { method: "PUT" }, { code: 2, message: "Bad handshake method" }],
      [{ transport: "websocket" }, {}, { code: 3, message: "Bad request" }],
      ...["3", "5", "abc", ""].map((EIO) => [{ EIO }, {}, version]),
    ];
    for (const [parts, options, error] of cases) {
      const answer = await get(one, parts, options);
      const what = JSON.stringify([parts, options]).slice(0, 200);
      assert.equal(answer.status, 400, what);
      assert.match(answer.headers["content-type"], /^application\/json/, what);
      assert.deepEqual(answer.json(), error, what);
    }
    assert.deepEqual((await request(`${one.url}/socket.io/?transport=polling`)).json(), version, "a missing EIO counts as 3");
    const upgrade = async (parts) => keep(await engineSocket(one, parts));
    for (const parts of [{ sid: "x" }, { EIO: "3" }]) {
      const socket = await upgrade(parts);
      if (socket.status === 101) await socket.untilClosed();
      else assert.equal(socket.status, 400);
    }
    const websocketOnly = await node({ socketio: { transports: ["websocket"] } });
    assert.deepEqual((await get(websocketOnly)).json(), { code: 0, message: "Transport unknown" });
  });

  scenario("polling: several packets in one payload are handled, and the POST is answered ok", async ({ node }) => {
    const one = await node();
    const polling = await new Polling(one).open();
    assert.match(await polling.join({ token }), /^40\{"sid":"[\w-]{20}"/);
    const sent = await polling.post(`420["echo",1]${SEPARATOR}421["echo","é"]`);
    assert.deepEqual([sent.status, sent.headers["content-type"], sent.text], [200, "text/html", "ok"]);
    let packets = "";
    await until(async () => {
      packets += SEPARATOR + (await polling.get()).text;
      return packets.includes('430[1]') && packets.includes('431["é"]');
    }, () => `both acknowledgements: ${packets}`);
    assert.deepEqual((await polling.post("1")).text, "ok");
    await gone(polling);
  });

  scenario("polling: a second GET, a second POST, a dropped GET or garbage ends the session", async ({ node, raw }) => {
    const one = await node();
    const open = async () => {
      const polling = await new Polling(one).open();
      await polling.join({ token });
      return polling;
    };
    const twoGets = await open();
    const both = await Promise.all([twoGets.get(), twoGets.get()]);
    const outcomes = both.map(({ status, text }) => `${status} ${text}`).sort();
    assert.deepEqual(outcomes, ["200 1", "400 "], "the first gets the close packet, the second is refused");
    await gone(twoGets);

    // Many times: the late end of one POST must not be taken for the end of the next.
    await Promise.all(Array.from({ length: 20 }, async () => {
      const twoPosts = await open();
      const half = raw(one);
      half.write(`POST ${enginePath({ sid: twoPosts.sid })} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 50\r\n\r\n42[`);
      await until(async () => {
        const answer = await twoPosts.post('42["echo",1]');
        return answer.status === 400;
      }, "the second POST refused");
      await gone(twoPosts);
    }));

    const dropped = await open();
    await until(async () => {
      const pending = raw(one);
      pending.write(`GET ${enginePath({ sid: dropped.sid })} HTTP/1.1\r\nHost: x\r\n\r\n`);
      // The node has usually read the GET when it answers this request.
      await one.get("/health/live");
      pending.close();
      return (await dropped.post('42["echo",1]')).status === 400;
    }, "the session ended by a dropped GET");

    for (const body of ["abc", "", "4abc", "9"]) {
      const polling = await open();
      assert.ok([200, 400].includes((await polling.post(body)).status));
      await until(async () => (await polling.get()).status === 400, `the session ended by ${body}`);
    }
    // Many times: the next request may come to the session's own shard, before the one that was refused elsewhere.
    for (let round = 0; round < 20; round += 1) {
      const binary = await open();
      assert.equal((await binary.post("4", { "content-type": "application/octet-stream" })).status, 400);
      await gone(binary);
    }
  });

  scenario("a payload over max_payload is 413 on polling and 1009 on WebSocket; one of exactly the limit is accepted", async ({ node, keep }) => {
    const one = await node({ socketio: { max_payload: "1000B" } });
    const polling = await new Polling(one).open();
    assert.equal(polling.opened.maxPayload, 1000);
    await polling.join({ token });
    const text = (size) => `42["echo","${"x".repeat(size - 13)}"]`;
    assert.equal(text(1000).length, 1000);
    assert.equal((await polling.post(text(1001))).status, 413);
    const socket = keep(await joinedSocket(one, token));
    socket.sendText(text(1000));
    await socket.text((got) => got.startsWith('42["echoed"'));
    socket.sendText(text(1001));
    assert.equal(await socket.closeCode(), 1009);
  });

  scenario("upgrade: the probe ends the pending GET with a noop, then the WebSocket is the transport", async ({ node, keep }) => {
    const one = await node();
    const polling = await new Polling(one).open();
    await polling.join({ token });
    const pending = polling.get();
    const socket = keep(await engineSocket(one, { sid: polling.sid }));
    socket.sendText("2probe");
    assert.equal(await socket.text(() => true), "3probe");
    assert.equal((await pending).text, "6");
    assert.equal((await polling.get()).text, "6", "a GET after the probe too");
    socket.sendText("5");
    await published(one, { room: "user:7", event: "news", data: 1 });
    await socket.text((text) => text.startsWith('42["news",1'));
    assert.deepEqual((await polling.get()).json(), { code: 3, message: "Bad request" });
    const twice = keep(await engineSocket(one, { sid: polling.sid }));
    if (twice.status === 101) await twice.closeCode();
    socket.sendText('420["echo","unharmed"]');
    await socket.text((text) => text.startsWith('430["unharmed"'));
  });

  scenario("an upgrade that is dropped or invalid leaves the polling session open", async ({ node, keep }) => {
    const one = await node();
    const polling = await new Polling(one).open();
    await polling.join({ token });
    const dropped = keep(await engineSocket(one, { sid: polling.sid }));
    dropped.sendText("2probe");
    await dropped.text((text) => text === "3probe");
    dropped.close();
    await until(async () => {
      const wrong = keep(await engineSocket(one, { sid: polling.sid }));
      wrong.sendText("4hello");
      return wrong.closeCode();
    }, "the WebSocket closed after an invalid first packet");
    await published(one, { room: "user:7", event: "still", data: 1 });
    let got = "";
    await until(async () => (got += (await polling.get()).text).includes('["still",1'), () => `the event on polling: ${got}`);
  });

  scenario("heartbeat: a client that does not answer pings is closed on both transports; a ping of a client is an error", async ({ node, keep }) => {
    const one = await node({ socketio: { ping_interval: "500ms", ping_timeout: "4s" } });
    const socket = keep(await joinedSocket(one, token));
    await socket.text((text) => text === "2");
    socket.sendText("3");
    await until(() => socket.texts.filter((text) => text === "2").length === 2, "the next ping");
    assert.equal(await socket.closeCode(), 1005, "no code after a ping timeout");
    const polling = await new Polling(one).open();
    assert.equal((await polling.get()).text, "2");
    assert.equal((await polling.get()).text, "1", "a pending GET gets the close packet");
    await gone(polling);
    const wrong = keep(await joinedSocket(one, token));
    wrong.sendText("2");
    await wrong.closeCode();
    const metric = 'roomcast_closes_total{reason="ping_timeout"}';
    await until(async () => (await one.metric(metric)) >= 2, "ping timeouts counted");
  });

  scenario("WebSocket: close, open and noop packets of a client are ignored, and invalid packets close the connection without a code", async ({ node, keep }) => {
    const one = await node();
    const socket = keep(await joinedSocket(one, token));
    for (const text of ["1", "0", "6"]) socket.sendText(text);
    socket.sendText('420["echo",1]');
    await socket.text((text) => text === "430[1]");
    for (const text of ["", "abc", "4", "4abc", "47[]", "42{}", "42[]", '42["x"', '42["disconnect"]', '40{}', '450-["x"]']) {
      const other = keep(await joinedSocket(one, token));
      other.sendText(text);
      await until(() => other.closed || other.frames.some(({ opcode }) => opcode === CLOSE), `a close after ${JSON.stringify(text)}`);
    }
    const binary = keep(await joinedSocket(one, token));
    binary.write(frame(2, Buffer.of(1)));
    await binary.closeCode();
  });

  // The stock client delivers messages one tick later, and drops those that share a payload with a close.
  scenario("polling: a close packet is the only one of its payload, after `41` and after pending messages", async ({ node }) => {
    const one = await node();
    const open = async () => {
      const polling = await new Polling(one).open();
      await polling.join({ token });
      return polling;
    };
    for (const pending of [true, false]) {
      const polling = await open();
      const early = pending && polling.get();
      assert.deepEqual((await command(one, "/disconnect", { user: "7" })).json(), { sessions: 1 });
      assert.equal((await (early || polling.get())).text, "41");
      const end = await polling.get();
      assert.ok(end.status === 400 || ["1", `6${SEPARATOR}1`].includes(end.text), end.text);
    }
    const waiting = await open();
    await published(one, { room: "user:7", event: "last", data: 1 });
    await command(one, "/disconnect", { user: "7" });
    const packets = (await waiting.get()).text.split(SEPARATOR);
    assert.match(packets[0], /^42\["last",1/);
    assert.deepEqual(packets.slice(1), ["41"]);
  });

  scenario("connect_timeout closes a connection that joins no namespace", async ({ node, keep }) => {
    const one = await node({ socketio: { connect_timeout: "3s" } });
    const socket = keep(await engineSocket(one));
    await socket.closeCode();
    const polling = await new Polling(one).open();
    await until(async () => (await polling.get()).status === 400, "the polling session ended");
  });

  scenario("CORS: headers and preflights for allowed origins; other origins are refused on polling, WebSocket, /ws and SSE", async ({ node, keep, raw, ws, sse }) => {
    const origins = ["https://app.example.com", "http://localhost:3000"];
    const one = await node({ cors: { origins } });
    for (const origin of origins) {
      const answer = await get(one, {}, { headers: { origin } });
      assert.equal(answer.status, 200);
      assert.equal(answer.headers["access-control-allow-origin"], origin);
      assert.equal(answer.headers["access-control-allow-credentials"], "true");
      assert.match(answer.headers.vary, /origin/i);
      const wrong = await get(one, { sid: "x" }, { headers: { origin } });
      assert.equal(wrong.headers["access-control-allow-origin"], origin, "on errors too");
      const asked = { origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization,x-mine" };
      const preflight = await get(one, {}, { method: "OPTIONS", headers: asked });
      assert.equal(preflight.status, 204);
      assert.match(preflight.headers["access-control-allow-methods"], /GET.*POST/);
      assert.match(preflight.headers["access-control-allow-headers"], /authorization/i);
      assert.equal(keep(await engineSocket(one, {}, { Origin: origin })).status, 101);
    }
    const same = { origin: one.url, host: `127.0.0.1:${one.port}` };
    assert.equal((await get(one, {}, { headers: same })).status, 200, "the same origin is always accepted");
    const strangers = ["https://evil.example", "https://app.example.com.evil.io", "https://evilapp.example.com", "http://app.example.com",
      "https://app.example.com:8443", "null", "https://app.example.com@evil.io", "https://APP.example.com.", "localhost:3000"];
    for (const origin of strangers) {
      const answer = await get(one, {}, { headers: { origin } });
      assert.equal(answer.status, 403, origin);
      assert.equal(answer.json().code, 4);
      assert.equal(answer.headers["access-control-allow-origin"], undefined);
      for (const path of [enginePath({ transport: "websocket" }), `/ws?token=${token}`]) {
        const socket = raw(one);
        await socket.upgrade(path, { Origin: origin });
        assert.ok([400, 403].includes(socket.status), `${origin} on ${path}: ${socket.status}`);
      }
      assert.equal((await sse(one, { token, rooms: ["room:a"], headers: { origin } }).answered()).status, 403, origin);
    }
    const open = await node({ cors: { origins: ["*"] } });
    assert.equal((await get(open, {}, { headers: { origin: "https://any.example" } })).status, 200);
    assert.equal((await get(open)).headers["access-control-allow-credentials"], undefined);
    await ws(open, { token, headers: { origin: "https://any.example" } }).welcomed();
  });
});
