// POST /publish byte by byte: what a connection answers to requests that are plain, split, pipelined, malformed or ambiguous.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const LINE = "POST /publish HTTP/1.1\r\nHost: x\r\n";
const event = (data) => JSON.stringify({ room: "room:a", event: "e", data });
const BODY = event(1);

/** The bytes of a request. `more` are header lines. */
function request(body = BODY, { line = LINE, more = "", length = Buffer.byteLength(body), key = KEY } = {}) {
  return `${line}Authorization: Bearer ${key}\r\n${more}${length === null ? "" : `Content-Length: ${length}\r\n`}\r\n${body}`;
}

/** The answers that were received whole. */
function answersOf(connection) {
  const answers = [];
  for (let rest = connection.received; ; ) {
    const end = rest.indexOf("\r\n\r\n");
    if (end < 0) return answers;
    const head = rest.subarray(0, end).toString("latin1");
    const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1]);
    if (rest.length < end + 4 + length) return answers;
    answers.push({ status: Number(head.split(" ")[1]), head, body: rest.subarray(end + 4, end + 4 + length).toString() });
    rest = rest.subarray(end + 4 + length);
  }
}

async function answers(connection, count) {
  await until(() => connection.closed || answersOf(connection).length >= count, () => `${count} answers; got ${connection.received}`);
  return answersOf(connection);
}

const statuses = (all) => all.map(({ status }) => status);
const close = "\r\nconnection: close";

suite("the bytes of POST /publish", () => {
  scenario("an answer has these bytes", async ({ node, raw }) => {
    const connection = raw(await node());
    for (const [body, status, text] of [
      [BODY, "200 OK", /^\{"offset":"[0-9a-f]+-\d+-\d+"\}$/],
      [JSON.stringify({ room: "room:a", event: "e", volatile: true }), "200 OK", /^\{"offset":null\}$/],
      [`{"events":[${BODY},{"room":"r"}]}`, "200 OK", /^\{"results":\[\{"offset":"[^"]+"\},\{"error":\{"code":"bad_field","message":"`event` is missing"\}\}\]\}$/],
      [JSON.stringify({ event: "e" }), "400 Bad Request", /^\{"error":\{"code":"no_room","message":".+"\}\}$/],
    ]) {
      connection.received = Buffer.alloc(0);
      connection.write(request(body));
      const [answer] = await answers(connection, 1);
      assert.match(answer.body, text);
      const date = /\r\ndate: (.+)$/.exec(answer.head)[1];
      assert.equal(new Date(date).toUTCString(), date);
      const lines = `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(answer.body)}\r\ndate: ${date}`;
      assert.equal(answer.head, lines);
    }
  });

  scenario("what is plain, and what is not, has the same answer", async ({ node, raw }) => {
    const one = await node();
    // Statuses in order, and whether the connection is open afterwards.
    const cases = {
      plain: [request(), [200], true],
      "lines without carriage returns": [request().replaceAll("\r\n", "\n"), [200], true],
      "one line without a carriage return": [request(BODY, { more: "X: y\n" }), [200], true],
      "empty lines before and between": [`\r\n${request()}\r\n${request()}`, [200, 200], true],
      "HTTP/1.0": [request(BODY, { line: "POST /publish HTTP/1.0\r\nHost: x\r\n" }), [200], false],
      "a whole URL": [request(BODY, { line: "POST http://x/publish HTTP/1.1\r\nHost: x\r\n" }), [200], true],
      "a query": [request(BODY, { line: "POST /publish?a=1 HTTP/1.1\r\nHost: x\r\n" }), [200], true],
      "the same length twice": [request(BODY, { more: `Content-Length: ${BODY.length}\r\n` }), [200], true],
      "a padded length": [request(BODY, { length: `0${BODY.length}` }), [200], true],
      "no length": [request("", { length: null }), [400], true],
      "Connection: close": [request(BODY, { more: "Connection: close\r\n" }) + request(), [200], false],
      "Connection: keep-alive": [request(BODY, { more: "Connection: keep-alive\r\n" }) + request(), [200, 200], true],
      "a wrong key": [request(BODY, { key: "wrong" }), [401], false],
      "a body over the limit": [request("", { length: 5_000_001 }), [413], false],
      "no host": [request(BODY, { line: "POST /publish HTTP/1.1\r\n" }), [400], false],
      "two hosts": [request(BODY, { more: "Host: y\r\n" }), [400], false],
      "two keys, the first of which counts": [request(BODY, { more: "Authorization: Bearer wrong\r\n" }), [200], true],
      "a body that is not UTF-8": [Buffer.concat([Buffer.from(request("", { length: 2 })), Buffer.of(0xff, 0xfe)]), [400], true],
      // What two parsers might read differently.
      "two lengths": [request(BODY, { more: "Content-Length: 1\r\n" }) + request(), [400], false],
      "a length with a sign": [request(BODY, { length: `+${BODY.length}` }), [400], false],
      "a list of lengths": [request(BODY, { length: `${BODY.length}, ${BODY.length}` }), [400], false],
      "an empty length": [request(BODY, { length: "" }), [400], false],
      "a huge length": [request(BODY, { length: "99999999999999999999" }), [400], false],
      "a line that goes on": [request(BODY, { more: "X: y\r\n z\r\n" }), [400], false],
      "a length that goes on": [request(BODY, { length: `\r\n ${BODY.length}` }), [400], false],
      "a space before the colon": [request(BODY, { more: "X : y\r\n" }), [400], false],
      "a carriage return in a value": [request(BODY, { more: "X: a\rb\r\n" }), [400], false],
      "a NUL in a value": [request(BODY, { more: "X: a\0b\r\n" }), [400], false],
      "a NUL in a name": [request(BODY, { more: "X\0: b\r\n" }), [400], false],
      "a line without a colon": [request(BODY, { more: "X\r\n" }), [400], false],
      "half a line that cannot become one": [`${LINE}bad header`, [400], false],
    };
    let accepted = 0;
    for (const [name, [bytes, expected, isOpen]] of Object.entries(cases)) {
      const connection = raw(one);
      connection.write(bytes);
      if (!isOpen) await connection.untilClosed();
      const all = await answers(connection, expected.length);
      assert.deepEqual(statuses(all), expected, `${name}: ${connection.received}`);
      assert.equal(all.at(-1).head.includes(close), !isOpen && !name.startsWith("HTTP/1.0"), `${name}: ${all.at(-1).head}`);
      if (isOpen) {
        connection.write(request());
        assert.deepEqual(statuses(await answers(connection, expected.length + 1)), [...expected, 200], `after ${name}`);
        accepted += 1;
      }
      accepted += expected.filter((status) => status === 200).length;
      connection.close();
    }
    await one.metricIs('roomcast_publish_answers_total{status="200"}', accepted);
    await one.metricIs('roomcast_events_total{source="http"}', accepted);
  });

  scenario("a chunked body cannot hide a request, with or without a length", async ({ node, raw, ws }) => {
    const one = await node();
    const watcher = await ws(one, { token: tokenFor("7") }).welcomed();
    let plain = 0;
    const hidden = request(JSON.stringify({ room: "user:7", event: "hidden" }));
    for (const encoding of ["chunked", "identity", "gzip, chunked", "chunked, identity", "xchunked"]) {
      for (const length of [null, 3]) {
        const connection = raw(one);
        connection.write(request(`0\r\n\r\n${hidden}`, { more: `Transfer-Encoding: ${encoding}\r\n`, length }));
        // A body that ends as it says is one, and what follows it is another request, for everybody who reads it.
        const isPlain = length === null && /(^| )chunked$/.test(encoding);
        if (!isPlain) await connection.untilClosed();
        const all = await answers(connection, isPlain ? 2 : 1);
        assert.deepEqual(statuses(all), isPlain ? [400, 200] : [400], `${encoding}, ${length}: ${connection.received}`);
        plain += isPlain ? 1 : 0;
        connection.close();
      }
    }
    const connection = raw(one);
    connection.write(request(JSON.stringify({ room: "user:7", event: "seen" })));
    await until(() => watcher.eventsOf("seen").length === 1, "the event of a plain request");
    assert.equal(watcher.eventsOf("hidden").length, plain);
  });

  scenario("requests arrive in any pieces", async ({ node, raw, ws }) => {
    const one = await node();
    const watcher = await ws(one, { token: tokenFor("7") }).welcomed();
    const bytes = Buffer.from(request(JSON.stringify({ room: "user:7", event: "e" })));
    const connection = raw(one);
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    let sent = 0;
    const check = async () => {
      sent += 1;
      assert.deepEqual(statuses(await answers(connection, 1)), [200]);
      connection.received = Buffer.alloc(0);
    };
    for (let at = 1; at < bytes.length; at += 1) {
      connection.write(bytes.subarray(0, at));
      await turn();
      connection.write(bytes.subarray(at));
      await check();
    }
    for (const byte of bytes) {
      connection.write(Buffer.of(byte));
      await turn();
    }
    await check();
    await until(() => watcher.eventsOf("e").length === sent, "each event once");
    await one.metricIs('roomcast_memory_bytes{kind="heads"}', 0);
    await one.metricIs('roomcast_memory_bytes{kind="bodies"}', 0);
  });

  scenario("pipelined requests are answered in order, whoever reads them", async ({ node, raw, ws }) => {
    const one = await node();
    const watcher = await ws(one, { token: tokenFor("7") }).welcomed();
    const numbered = (n) => request(JSON.stringify({ room: "user:7", event: "e", data: n }));
    const other = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    for (const [length, every] of [[500, 1_000], [60, 20]]) {
      const connection = raw(one);
      const before = watcher.eventsOf("e").length;
      const requests = Array.from({ length }, (_, n) => (n % every === every - 1 ? other : n % 7 === 3 ? request("{") : numbered(n)));
      connection.write(requests.join(""));
      const all = await answers(connection, length);
      assert.deepEqual(statuses(all), requests.map((one) => (one === request("{") ? 400 : 200)));
      const numbers = requests.flatMap((one, n) => (one === numbered(n) ? [n] : []));
      const offsets = numbers.map((n) => JSON.parse(all[n].body).offset);
      assert.equal(new Set(offsets).size, offsets.length);
      await until(() => watcher.eventsOf("e").length === before + numbers.length, "all events");
      assert.deepEqual(watcher.eventsOf("e").slice(before).map(({ data, args }) => data ?? args[0]), numbers);
    }
  });

  scenario("a large batch between small requests", async ({ node, raw, ws }) => {
    const one = await node();
    const watcher = await ws(one, { token: tokenFor("7") }).welcomed();
    const small = JSON.stringify({ room: "user:7", event: "e" });
    const large = `${JSON.stringify({ room: "user:7", event: "e", data: "x".repeat(3_000) })}\n`.repeat(300);
    const connection = raw(one);
    connection.write(request(small) + request(large, { more: "Content-Type: application/x-ndjson\r\n" }) + request(small));
    const all = await answers(connection, 3);
    assert.deepEqual(statuses(all), [200, 200, 200]);
    assert.equal(JSON.parse(all[1].body).results.length, 300);
    await until(() => watcher.eventsOf("e").length === 302, "all events");
  });

  scenario("a client that ends its side after a request gets the answer; half a body or head is refused", async ({ node, raw }) => {
    const one = await node();
    for (const [bytes, expected] of [[request(), [200]], [request().repeat(3), [200, 200, 200]], [request(BODY, { length: 100 }), [400]], [LINE, []]]) {
      const connection = raw(one);
      connection.socket.end(bytes);
      await connection.untilClosed();
      assert.deepEqual(statuses(answersOf(connection)), expected, `${bytes}: ${connection.received}`);
    }
  });

  scenario("heads have their time, whatever came before them", async ({ node, raw }) => {
    const one = await node({ http: { head_timeout: "3s", idle_timeout: "9s" } });
    const [silent, first, later, idle] = [raw(one), raw(one), raw(one), raw(one)];
    const asked = Date.now();
    first.write(LINE);
    for (const connection of [later, idle]) connection.write(request());
    for (const connection of [later, idle]) await answers(connection, 1);
    later.write(request().slice(0, 90));
    for (const connection of [silent, first, later]) await connection.untilClosed();
    assert.ok(!idle.closed, "an idle connection has another time");
    assert.equal(answersOf(first).length, 0);
    await one.metricIs('roomcast_refusals_total{reason="incomplete"}', 3);
    await idle.untilClosed();
    assert.ok(Date.now() - asked >= 8_900, `closed after ${Date.now() - asked} ms`);
    assert.equal(await one.metric('roomcast_refusals_total{reason="incomplete"}'), 3, "an idle connection is nobody's mistake");
    await one.metricIs('roomcast_memory_bytes{kind="heads"}', 0);
  });

  scenario("a publisher that reads no answers is cut", async ({ node, raw }) => {
    const one = await node({ http: { write_timeout: "2s" } });
    const connection = raw(one);
    connection.socket.pause();
    const many = request().repeat(500);
    const pump = () => {
      while (!connection.closed && connection.socket.write(many));
    };
    connection.socket.on("drain", pump);
    pump();
    await until(async () => (await one.metric('roomcast_memory_bytes{kind="bodies"}')) > 4_096, "answers that are counted");
    await one.metricIs('roomcast_refusals_total{reason="unread"}', 1);
    await one.metricIs('roomcast_memory_bytes{kind="bodies"}', 0);
    connection.close();
  });

  scenario("from the beginning of a drain on, the answer ends the connection", async ({ node, raw }) => {
    const one = await node({ shutdown: { pause: "5s", drain: "1s", timeout: "15s" } });
    const [waiting, begun] = [raw(one), raw(one)];
    for (const connection of [waiting, begun]) {
      connection.write(request());
      await answers(connection, 1);
      connection.received = Buffer.alloc(0);
    }
    begun.write(request().slice(0, -5));
    await until(async () => (await one.metric('roomcast_memory_bytes{kind="bodies"}')) > 0, "the beginning of a body");
    const stopped = one.stop();
    await one.says("stopping");
    begun.write(request().slice(-5));
    waiting.write(request());
    for (const connection of [begun, waiting]) {
      await connection.untilClosed();
      const [answer] = answersOf(connection);
      assert.ok(answer.status === 200 && answer.head.includes(close), answer.head);
    }
    await stopped;
  });
});
