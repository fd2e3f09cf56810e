// Hostile input: the connection that sends it ends with a reason, the metrics count it, and other clients notice nothing.
import assert from "node:assert/strict";
import { bystander } from "../harness/bystander.mjs";
import { until } from "../harness/deadline.mjs";
import { Polling, enginePath, engineSocket, joinedSocket } from "../harness/engine.mjs";
import { assertError, publish, published } from "../harness/publish.mjs";
import { BINARY, CLOSE, PING, PONG, TEXT, frame } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const ended = (socket, what) =>
  until(() => socket.closed || socket.frames.some(({ opcode }) => opcode === CLOSE), `the end after ${what}`);

const placeholder = (num) => `{"_placeholder":true,"num":${num}}`;

suite("hostile input", () => {
  scenario("packets with missing, extra or false attachments and reserved event names close the connection", async (started) => {
    const one = await started.node();
    const unharmed = await bystander(started, one);
    const eleven = Array.from({ length: 11 }, (_, n) => placeholder(n)).join();
    const heads = [
      `45999999999-["echo",${placeholder(0)}]`, `4511-["echo",${eleven}]`, `450-["echo"]`, '45-["echo"]', '45["echo"]',
      ...['"0"', "-1", "1", "0.5", "null", "9007199254740993", "1e3"].map((num) => `451-["echo",${placeholder(num)}]`),
      ...["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"].map((name) => `42["${name}"]`),
      '42[{"toString":1}]', "42[null]", "42[[]]", '421["echo"', `42${"9".repeat(400)}["echo"]x`,
    ];
    for (const head of heads) {
      const socket = started.keep(await joinedSocket(one, token));
      socket.sendText(head);
      if (head.startsWith("451-")) socket.write(frame(BINARY, Buffer.of(1)));
      await ended(socket, head);
    }
    const waiting = started.keep(await joinedSocket(one, token));
    waiting.sendText(`452-["echo",${placeholder(0)},${placeholder(1)}]`);
    waiting.write(frame(BINARY, Buffer.of(1)));
    waiting.sendText('42["echo",1]');
    await ended(waiting, "text amid attachments");
    await unharmed();
  });

  scenario("oversized, countless and malformed headers and requests are refused", async (started) => {
    const one = await started.node();
    const unharmed = await bystander(started, one);
    const head = (lines) => `GET ${enginePath({ transport: "websocket" })} HTTP/1.1\r\nHost: x\r\n${lines}\r\n`;
    const upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
    const requests = [
      head(`X: ${"x".repeat(1_000_000)}\r\n`), head(Array.from({ length: 5000 }, (_, n) => `X${n}: 1\r\n`).join("")),
      head(upgrade), head(`${upgrade}Sec-WebSocket-Key: short\r\n`), head(upgrade.replace("13", "7") + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
      `GET ${"/".repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`, "GET / HTTP/9.9\r\n\r\n", "\r\n\r\n\r\n\x16\x03\x01 not HTTP\r\n\r\n",
      "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
      "POST /publish HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", "GET /socket.io/?EIO=4&transport=polling&sid=%00%ff%zz HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for (const text of requests) {
      const socket = started.raw(one);
      socket.write(text);
      const answer = await until(() => socket.received.includes("\r\n\r\n") || socket.closed, `an answer to ${text.slice(0, 80)}`);
      assert.ok(answer);
      assert.doesNotMatch(socket.received.toString("latin1"), /^HTTP\/1\.1 (101|2|5)/, text.slice(0, 80));
      socket.close();
    }
    await unharmed();
  });

  scenario("polling: another protocol revision, a foreign session id and upgrades that never finish are refused, and the session goes on", async (started) => {
    const one = await started.node();
    const unharmed = await bystander(started, one);
    const victim = await new Polling(one).open();
    await victim.join({ token });
    const foreign = { ...victim, sid: victim.sid };
    for (const parts of [{ EIO: "3", sid: foreign.sid }, { transport: "websocket", sid: foreign.sid }]) {
      const answer = await started.raw(one);
      answer.write(`GET ${enginePath(parts)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
      assert.match(await answer.head(), /^HTTP\/1\.1 400/);
    }
    const probes = await Promise.all(Array.from({ length: 100 }, () => engineSocket(one, { sid: victim.sid })));
    for (const probe of probes) {
      started.keep(probe);
      if (probe.status === 101) probe.sendText("2probe");
    }
    await until(() => probes.filter((probe) => probe.status !== 101 || probe.closed || probe.frames.some(({ opcode }) => opcode === CLOSE)).length >= 99, "99 of 100 upgrades refused", 9_000);
    await published(one, { room: "user:7", event: "still", data: 1 });
    let got = "";
    await until(async () => (got += (await victim.get()).text).includes('["still"'), () => `the event on polling, got ${got}`);
    await unharmed();
  });

  scenario("WebSocket frames that violate RFC 6455 close the connection with the right code", async (started) => {
    const one = await started.node();
    const unharmed = await bystander(started, one);
    const cases = {
      "an unmasked frame": [frame(TEXT, "2", { masked: false }), 1002],
      "a reserved bit": [frame(TEXT, "3", { reserved: 4 }), 1002],
      "a reserved opcode": [frame(3, ""), 1002],
      "a reserved control opcode": [frame(11, ""), 1002],
      "a fragmented control frame": [frame(PING, "", { fin: false }), 1002],
      "a ping of 126 bytes": [frame(PING, "x".repeat(126)), 1002],
      "a continuation of nothing": [frame(0, "x"), 1002],
      "a message within a message": [Buffer.concat([frame(TEXT, "a", { fin: false }), frame(TEXT, "b")]), 1002],
      "invalid UTF-8": [frame(TEXT, Buffer.of(0x34, 0xff, 0xfe)), 1007],
      "a length of 2^63": [frame(TEXT, "x", { announce: 2n ** 63n }), undefined],
      "a length over the limit": [frame(TEXT, "x", { announce: 1_000_001 }), 1009],
      "close code 1005": [frame(CLOSE, Buffer.of(0x03, 0xed)), 1002],
      "close code 1006": [frame(CLOSE, Buffer.of(0x03, 0xee)), 1002],
      "a close of one byte": [frame(CLOSE, Buffer.of(3)), 1002],
      "invalid UTF-8 in a close reason": [frame(CLOSE, Buffer.of(0x03, 0xe8, 0xff)), 1007],
      "endless continuation": [Buffer.concat([frame(TEXT, "4", { fin: false }), ...Array(40).fill(frame(0, "x".repeat(30_000), { fin: false }))]), 1009],
    };
    for (const [what, [bytes, code]] of Object.entries(cases)) {
      for (const path of [enginePath({ transport: "websocket" }), `/ws?token=${token}`]) {
        const socket = started.raw(one);
        await socket.upgrade(path);
        assert.equal(socket.status, 101);
        await until(() => socket.frames.length > 0, "the first frame");
        socket.write(bytes);
        const got = await socket.closeCode().catch((error) => { throw new Error(`${what} on ${path}: ${error.message}`); });
        if (path.startsWith("/ws") && code) assert.equal(got, code, `${what} on ${path}`);
        socket.close();
      }
    }
    const fine = started.raw(one);
    await fine.upgrade(`/ws?token=${token}`);
    fine.write(frame(PING, "hello"));
    assert.equal((await fine.frame(PONG)).payload.toString(), "hello");
    const pieces = [...'{"type":"ping"}'];
    fine.write(Buffer.concat(pieces.map((c, n) => frame(n ? 0 : TEXT, c, { fin: n === pieces.length - 1 }))));
    await fine.text((text) => text.includes("pong"));
    await unharmed();
  });

  scenario("permessage-deflate is not negotiated", async (started) => {
    const one = await started.node();
    for (const path of [enginePath({ transport: "websocket" }), `/ws?token=${token}`]) {
      const socket = started.raw(one);
      const head = await socket.upgrade(path, { "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits" });
      assert.equal(socket.status, 101);
      assert.doesNotMatch(head, /extensions/i);
    }
  });

  scenario("connections that send nothing or drop at once leave no connection behind", async (started) => {
    const one = await started.node({ socketio: { connect_timeout: "5s" } });
    const unharmed = await bystander(started, one);
    for (let n = 0; n < 200; n += 1) {
      const socket = started.raw(one);
      socket.write(n % 2 ? "" : `GET ${enginePath()} HT`);
      if (n % 3) socket.close();
    }
    for (let n = 0; n < 50; n += 1) {
      const socket = started.raw(one);
      await socket.upgrade(enginePath({ transport: "websocket" }));
      if (n % 2) socket.close();
    }
    await unharmed();
    const total = async () => {
      const { text } = await one.get("/metrics");
      return [...text.matchAll(/^roomcast_connections\{[^}]*\} (\d+)/gm)].reduce((sum, [, value]) => sum + Number(value), 0);
    };
    await until(async () => (await total()) === 1, "only the bystander's connection");
  });

  scenario("JSON that is deep, long or strange is refused or passed on, and the other clients notice nothing", async (started) => {
    const one = await started.node();
    const unharmed = await bystander(started, one);
    const deep = "[".repeat(10_000) + "]".repeat(10_000);
    const digits = "1".repeat(900_000);
    for (const data of [deep, "[".repeat(900_000), digits, `"${"\\u0000".repeat(1000)}"`, '"\\ud800"']) {
      const answer = await publish(one, `{"room":"room:a","event":"e","data":${data}}`);
      assert.ok([200, 400].includes(answer.status), `${data.slice(0, 20)}: ${answer.status}`);
      if (answer.status === 400) assertError(answer, 400);
    }
    assertError(await publish(one, `{"room":"room:a","event":"e","data":${deep}}`), 400);
    assertError(await publish(one, "[".repeat(1_000_000)), 400);
    for (const text of [`42["echo",${deep}]`, `42${deep}`, `42["echo",${"[".repeat(900_000)}`]) {
      const socket = started.keep(await joinedSocket(one, token));
      socket.sendText(text);
      await until(() => socket.closed || socket.frames.length > 2, `an outcome of ${text.slice(0, 20)}`);
      socket.close();
    }
    const connect = started.keep(await engineSocket(one));
    connect.sendText(`40${deep}`);
    await ended(connect, "a deep CONNECT");
    const plain = started.ws(one, { token });
    await plain.welcomed();
    plain.send(`{"type":"event","event":"echo","data":${deep}}`);
    await until(() => plain.end ?? plain.messages.find(({ type }) => type === "error" || type === "event"), "an outcome on /ws");
    await unharmed();
  });
});
