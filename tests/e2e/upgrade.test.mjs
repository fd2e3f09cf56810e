// The handshake of a WebSocket that takes over a polling session has the same effect as that of a new one, also on another node.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { Polling, engineSocket, enginePath } from "../harness/engine.mjs";
import { published } from "../harness/publish.mjs";
import { BINARY, frame } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const ECHO = '451-["echo",{"_placeholder":true,"num":0}]';

/** Two nodes on one Redis: the first has the session, the second gets its WebSocket. */
async function two(s) {
  const store = await s.redis();
  return Promise.all([s.node({ redis: { url: store.url } }), s.node({ redis: { url: store.url } })]);
}

/** A polling session, and its WebSocket on `there`, after the probe. */
async function probed(s, here, there, { query = {}, headers = {}, join = true } = {}) {
  const polling = await new Polling(here).open();
  if (join) await polling.join({ token });
  const socket = s.keep(await engineSocket(there, { sid: polling.sid, ...query }, headers));
  assert.equal(socket.status, 101, socket.answer);
  const pending = polling.get();
  socket.sendText("2probe");
  await socket.text((text) => text === "3probe");
  await pending;
  socket.sendText("5");
  return socket;
}

/** Echoes an attachment, which must return as base64 in a text frame. */
async function echoesBase64(socket, node) {
  socket.sendText(ECHO);
  socket.sendText("bAQI=");
  await socket.text((text) => text === "bAQI=");
  await published(node, { room: "user:7", event: "pushed", data: { $binary: "AwQ=" } });
  await socket.text((text) => text === "bAwQ=");
  assert.ok(!socket.frames.some(({ opcode }) => opcode === BINARY));
}

suite("the WebSocket that takes over", () => {
  scenario("`protocols` of the stock client are accepted", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token, protocols: ["my-protocol", "other"] }).connected();
    await until(() => client.transport() === "websocket", () => `the upgrade; ${client.transport()}`);
    assert.deepEqual(await client.ask("echo", 1), [1]);
  });

  scenario("`protocols` are accepted on another node", async (s) => {
    const [here, there] = await two(s);
    for (const offered of ["my-protocol", "my-protocol, other"]) {
      const socket = await probed(s, here, there, { headers: { "Sec-WebSocket-Protocol": offered } });
      assert.match(socket.answer, /\r\nsec-websocket-protocol: my-protocol\r\n/i);
      assert.doesNotMatch(socket.answer, /sec-websocket-extensions/i);
    }
    const none = await probed(s, here, there);
    assert.doesNotMatch(none.answer, /sec-websocket-protocol/i);
  });

  scenario("with `b64=1`, attachments are base64 in text frames, in both directions", async (s) => {
    const [here, there] = await two(s);
    const fresh = s.keep(await engineSocket(here, { b64: "1" }));
    fresh.sendText(`40${JSON.stringify({ token })}`);
    await fresh.text((text) => text.startsWith("40"));
    await echoesBase64(fresh, here);
    fresh.close();
    for (const node of [here, there]) {
      const socket = await probed(s, here, node, { query: { b64: "1" } });
      await echoesBase64(socket, here);
      socket.close();
    }
    const binary = await probed(s, here, there);
    binary.sendText(ECHO);
    binary.write(frame(BINARY, Buffer.of(1, 2)));
    assert.deepEqual([...(await binary.frame(BINARY)).payload], [1, 2], "without it they are binary frames");
  });

  scenario("with `forceBase64` of the stock client, attachments are base64", async ({ node, io }) => {
    const one = await node();
    for (const transports of [["websocket"], ["polling", "websocket"], ["polling"]]) {
      const client = await io(one, { token, transports, forceBase64: true }).connected();
      if (transports.length > 1) await until(() => client.transport() === "websocket", "the upgrade");
      const [echo] = await client.ask("echo", Buffer.of(1, 2, 3));
      assert.deepEqual([...new Uint8Array(echo)], [1, 2, 3], String(transports));
    }
  });

  scenario("`Authorization` of the WebSocket request is used if there was none before", async (s) => {
    const [here, there] = await two(s);
    for (const node of [here, there]) {
      const headers = { Authorization: `Bearer ${token}` };
      const socket = await probed(s, here, node, { headers, join: false });
      socket.sendText("40");
      await socket.text((text) => text.startsWith('40{"sid"'));
    }
  });

  scenario("a WebSocket is refused for the same reasons as a new one, and the session continues polling", async (s) => {
    const [here, there] = await two(s);
    const polling = await new Polling(here).open();
    await polling.join({ token });
    for (const node of [here, there]) {
      const status = async (query, headers) => s.keep(await engineSocket(node, { sid: polling.sid, ...query }, headers)).status;
      assert.equal(await status({}, { Origin: "https://evil.test" }), 403);
      assert.equal(await status({ EIO: "3" }), 400);
      assert.equal(await status({}, { "Sec-WebSocket-Version": "8" }), 400);
      assert.equal(await status({}, { "Sec-WebSocket-Key": "x" }), 400);
      const posted = s.raw(node);
      posted.write(`POST ${enginePath({ transport: "websocket", sid: polling.sid })} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nContent-Length: 0\r\n\r\n`);
      assert.match(await posted.head(), /^HTTP\/1.1 400 /);
    }
    await polling.post('420["leave",1]');
    assert.equal((await polling.get()).text, '430[{"ok":true}]');
  });
});
