// Requests for a WebSocket byte by byte: what comes with them in one piece, and which are none.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { TEXT, frame } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const TOKEN = tokenFor("7");
const PATHS = [`/ws?token=${TOKEN}`, "/socket.io/?EIO=4&transport=websocket"];

const handshake = (path, { version = "1.1", more = "" } = {}) =>
  `GET ${path} HTTP/${version}\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${more}\r\n`;

const BODY = JSON.stringify({ room: "user:7", event: "e" });
const PUBLISH = `POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${KEY}\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`;

suite("requests for a WebSocket", () => {
  scenario("frames that come in the same piece are read, also behind a publish", async ({ node, raw }) => {
    const one = await node();
    const frames = { [PATHS[0]]: ['{"type":"ping"}', '"pong"'], [PATHS[1]]: [`40${JSON.stringify({ token: TOKEN })}`, "40{"] };
    for (const before of ["", PUBLISH]) {
      for (const path of PATHS) {
        const connection = raw(one);
        const [sent, expected] = frames[path];
        connection.write(Buffer.concat([Buffer.from(before + handshake(path)), frame(TEXT, sent)]));
        await until(() => connection.received.includes(expected), () => `${expected} in ${connection.received}`);
        const heads = connection.received.toString("latin1").match(/HTTP\/1\.1 \d+/g);
        assert.deepEqual(heads, before ? ["HTTP/1.1 200", "HTTP/1.1 101"] : ["HTTP/1.1 101"]);
      }
    }
  });

  scenario("HTTP/1.0 has no upgrade, and a request with a body is none", async ({ node, raw }) => {
    const one = await node();
    for (const path of PATHS) {
      for (const [how, body, status] of [
        [{ version: "1.0" }, "", path.startsWith("/ws") ? 426 : 400],
        [{ more: "Content-Length: 3\r\n" }, "abc", 400],
        [{ more: "Transfer-Encoding: chunked\r\n" }, "0\r\n\r\n", 400],
      ]) {
        const connection = raw(one);
        connection.write(handshake(path, how) + body);
        assert.match(await connection.head(), new RegExp(`^HTTP/1\\.[01] ${status} `), `${path} ${JSON.stringify(how)}`);
        connection.close();
      }
      const connection = raw(one);
      connection.write(handshake(path, { more: "Content-Length: 0\r\n" }));
      assert.match(await connection.head(), /^HTTP\/1\.1 101 /);
    }
    await one.metricIs('roomcast_refusals_total{reason="handshake"}', 6);
  });
});
