// Requests for a WebSocket byte by byte: what comes with them in one piece, and which are none. What comes with a handshake of TLS.
import assert from "node:assert/strict";
import net from "node:net";
import { Duplex } from "node:stream";
import tls from "node:tls";
import { makeCertificate } from "../harness/certificate.mjs";
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

/** A stream over a socket: what is written after its first message is sent in one piece, with the end of the socket's side. */
function inOnePiece(wire) {
  const held = [];
  let isFirst = true;
  const stream = new Duplex({
    read: () => wire.resume(),
    write(bytes, _, done) {
      if (isFirst) wire.write(bytes);
      else held.push(bytes);
      isFirst = false;
      done();
    },
    final: (done) => wire.end(Buffer.concat(held), done),
  });
  wire.on("data", (bytes) => stream.push(bytes));
  wire.on("end", () => stream.push(null));
  return stream;
}

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

  scenario("what comes with the end of a TLS handshake is read, also if it is all that comes", async ({ node, keep }) => {
    const one = await node({ tls: makeCertificate() });
    const wire = net.connect(one.port, "127.0.0.1");
    keep({ close: () => wire.destroy() });
    const client = tls.connect({ socket: inOnePiece(wire), rejectUnauthorized: false });
    let text = "";
    client.on("data", (data) => (text += data));
    client.once("secureConnect", () => client.end(PUBLISH));
    await until(() => text.startsWith("HTTP/1.1 200 "), () => `an answer; got ${text}`);
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
