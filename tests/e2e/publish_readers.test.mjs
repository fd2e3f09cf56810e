// Two readers of POST /publish: plain requests at the beginning of a connection are read without hyper, all others by hyper. What
// a backend or an operator sees must not depend on which of them reads. So the same bytes go to one node as the first ones of
// a connection, and to another node behind a request that only hyper takes.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { chance } from "../harness/random.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

/** Connections of a scenario, always the same ones; and how many are open at once. */
const CASES = Number(process.env.READER_CASES ?? 160);
const SEED = Number(process.env.READER_SEED ?? 1);
const AT_ONCE = 16;
const FOR_HYPER = "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n";
/** Ends the connection. */
const LAST = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const random = chance("readers", SEED);
const { below, pick } = random;
const oneIn = (n) => below(n) === 0;

const event = (more = {}) => JSON.stringify({ room: `room:${below(9)}`, event: "e", data: below(99), ...more });

const BODIES = [
  () => event(),
  () => event(),
  () => event({ data: "ü€😀 ".repeat(below(2_000)) }),
  () => event({ volatile: true }),
  () => event({ id: `id-${below(5)}` }),
  () => event({ room: undefined, rooms: ["room:1", "room:2"], except: ["room:3"] }),
  () => event({ args: [1, { $binary: "AAEC" }], data: undefined }),
  () => event({ room: undefined }),
  () => event({ room: pick([7, "", null, "x".repeat(201), "a\u0000b"]) }),
  () => event({ event: pick(["", "connect", "x".repeat(201), undefined]) }),
  () => event({ namespace: pick(["/", "/chat", "chat", ""]) }),
  () => event({ extra: 1 }),
  () => event({ data: "x".repeat(3_000) }),
  () => `{"events":[${Array.from({ length: below(6) }, () => pick([event(), event({ room: undefined }), event({ event: "" })])).join(",")}]}`,
  () => `{"events":[${Array.from({ length: pick([999, 1_000, 1_001]) }, () => event()).join(",")}]}`,
  () => Array.from({ length: below(5) }, () => pick([event(), "", "  ", "{", event({ room: undefined })])).join(pick(["\n", "\r\n", "\n\n"])) + pick(["", "\n", "\r\n"]),
  () => pick(["", "{", "[]", "null", "1", '"x"', "{}", "[".repeat(500), "\ufeff" + event(), event() + "\0", event() + event(), " \n" + event() + "\r\n", "a=1&b=2"]),
  () => Buffer.of(0xff, 0xfe, 0x7b, 0),
  () => Buffer.from(event({ data: "ü" }), "latin1"),
  () => Buffer.from(event(), "utf16le"),
];

const TYPES = [
  "application/json", "application/json; charset=utf-8", "application/json;charset=iso-8859-1", "text/plain", "application/x-www-form-urlencoded",
  "application/x-ndjson", "application/x-ndjson; charset=utf-8", "Application/X-NDJSON", " application/x-ndjson ", "", "application/x-ndjson\t;x", "multipart/form-data; boundary=x",
];

const randomCase = (text) => pick([text, text, text.toLowerCase(), text.toUpperCase(), [...text].map((c) => (oneIn(2) ? c.toUpperCase() : c.toLowerCase())).join("")]);

const KEYS = [`Bearer ${KEY}`, `bearer ${KEY}`, `Bearer  ${KEY}`, `Bearer ${KEY} `, `Bearer\t${KEY}`, "Bearer wrong", "Bearer", "Bearer ", KEY, `Basic ${KEY}`, `Bearer ${KEY.slice(1)}`, `Bearer "${KEY}"`, `Bearer ${KEY}ü`, ""];

/** Header lines that may be added to a request. */
const ODD = [
  () => `X-Text: ${pick(["", "y", " \t ", "ü", "\x80", "a: b"])}`,
  () => `Content-Type: ${pick(TYPES)}`,
  () => `Content-Encoding: ${pick(["gzip", "identity", "br"])}`,
  () => `Connection: ${pick(["keep-alive", "Keep-Alive", "upgrade", "keep-alive, upgrade", "x", ""])}`,
  () => `Expect: ${pick(["100-continue", "100-Continue", "x"])}`,
  () => `Upgrade: ${pick(["h2c", "websocket"])}`,
  () => `Host: ${pick(["y", "", "x:80", "a b", "ü"])}`,
  () => `Authorization: ${pick(KEYS)}`,
  () => `X-Api-Key: ${KEY}`,
  () => `Cookie: key=${KEY}`,
  () => `TE: trailers`,
  () => `Trailer: X`,
  () => `Accept-Encoding: gzip`,
  () => `Keep-Alive: timeout=5`,
  () => "Proxy-Connection: close",
  () => `X-Forwarded-For: ${pick(["10.0.0.1", "x"])}`,
  () => `Forwarded: for=10.0.0.1`,
  () => `traceparent: ${pick(["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x"])}`,
  () => `Origin: https://evil.example`,
  () => `Date: Thu, 01 Jan 1970 00:00:00 GMT`,
  () => `HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA`,
  () => `X: y\r\n folded`,
  () => `X : y`,
  () => `X`,
  () => `: y`,
  () => `X: a\0b`,
  () => `X: a\rb`,
  () => `X: a\nY: b`,
  () => `X(: y`,
  () => `X: ${"y".repeat(pick([7_000, 9_000]))}`,
  () => `Content-Length: ${pick(["0", "3", "+5", "", "5, 5", "0x5", "05", "99999999999999999999", "5000001"])}`,
  () => `Transfer-Encoding: ${pick(["chunked", "identity", "gzip, chunked", "xchunked"])}`,
];

const OTHERS = [FOR_HYPER, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"];

/** Request lines that are not the usual one. */
const LINES = [
  "GET /publish HTTP/1.1", "PUT /publish HTTP/1.1", "post /publish HTTP/1.1", "OPTIONS /publish HTTP/1.1", "HEAD /publish HTTP/1.1", "POST /publish/ HTTP/1.1", "POST //publish HTTP/1.1",
  "POST /publish?x=1 HTTP/1.1", `POST /publish?key=${KEY} HTTP/1.1`, "POST http://x/publish HTTP/1.1", "POST https://y/publish HTTP/1.1", "POST /%70ublish HTTP/1.1", "POST /publish#x HTTP/1.1",
  "POST /publish HTTP/0.9", "POST /publish HTTP/2.0", "POST /publish", "POST  /publish HTTP/1.1", "POST /publish  HTTP/1.1", "POST * HTTP/1.1", "POST x:80 HTTP/1.1", "CONNECT x:80 HTTP/1.1",
  "POST /join HTTP/1.1", "POST /Publish HTTP/1.1", "POST\t/publish HTTP/1.1", "POST /publish HTTP/1.1 ",
];

function chunked(body) {
  const bytes = Buffer.from(body);
  const parts = [];
  for (let at = 0; at < bytes.length; ) {
    const size = Math.min(bytes.length - at, 1 + below(pick([3, 200, 9_000])));
    parts.push(`${pick([size.toString(16), size.toString(16).toUpperCase(), `0${size.toString(16)}`])}${pick(["", "", ";x=y", ';x="a b"', " "])}\r\n`, bytes.subarray(at, at + size), "\r\n");
    at += size;
  }
  parts.push(pick(["0\r\n\r\n", "0\r\n\r\n", "0\r\nX: y\r\n\r\n", "0;x\r\n\r\n", "00\r\n\r\n", "0\r\nAuthorization: Bearer x\r\n\r\n", "x\r\n\r\n"]));
  return Buffer.concat(parts.map((part) => Buffer.from(part)));
}

/** What may end a connection: more headers or bytes than a node takes, or fewer by a few; and what clients say of it. */
const LAST_LINES = [
  ...[32_000, 33_000].map((length) => `X: ${"y".repeat(length)}`),
  ...[93, 96, 97, 98, 120].map((length) => Array.from({ length }, (_, n) => `X-${n}: y`).join("\r\n")),
  ...["close", "Close", "close, keep-alive", "te, close", "keep-alive,close", "keep-alive\r\nConnection: close"].map((value) => `Connection: ${value}`),
];

/** The bytes of a plain request, in the order in which most libraries write it. */
function plain(line = "X: y", version = "1.1") {
  const body = event();
  return Buffer.from(`POST /publish HTTP/${version}\r\nHost: x\r\n${line}\r\nAuthorization: Bearer ${KEY}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
}

const ending = () => plain(pick(LAST_LINES), oneIn(4) ? "1.0" : "1.1");

/** The bytes of any request. */
function request() {
  const body = Buffer.from(pick(BODIES)());
  const isChunked = oneIn(12);
  const framing = isChunked ? "Transfer-Encoding: chunked" : `Content-Length: ${oneIn(40) ? body.length + pick([-1, 1, 10]) : body.length}`;
  const lines = ["Host: x", `Authorization: Bearer ${KEY}`, framing];
  if (body.includes("\n") && !oneIn(4)) lines.push(`Content-Type: ${pick(TYPES.slice(5))}`);
  if (oneIn(25)) lines.splice(below(3), 1);
  if (oneIn(12)) lines[1] = `Authorization: ${pick(KEYS)}`;
  for (let odd = below(6) - 2; odd > 0; odd -= 1) lines.splice(below(lines.length + 1), 0, pick(ODD)());
  if (oneIn(3)) lines.reverse();
  const end = oneIn(40) ? "\n" : "\r\n";
  const line = oneIn(8) ? pick(LINES) : "POST /publish HTTP/1.1";
  const head = Buffer.from([line, ...lines.map(written), "", ""].join(end), "latin1");
  return Buffer.concat([Buffer.from(oneIn(40) ? "\r\n" : ""), head, isChunked ? chunked(body) : body]);
}

/** A header line with some case and some space. */
function written(line) {
  const colon = line.indexOf(":");
  return colon < 1 ? line : randomCase(line.slice(0, colon)) + pick([":", ": ", ": ", ":\t "]) + line.slice(colon + 1).trimStart() + pick(["", "", " "]);
}

/** What is sent on one connection: pieces, after which the client ends its side, or sends the last request once it has so many answers. */
function conversation() {
  if (oneIn(15)) {
    const whole = plain();
    return { pieces: [whole.subarray(0, below(whole.length))], isCut: true };
  }
  const requests = Array.from({ length: 1 + below(4) }, () => (oneIn(10) ? Buffer.from(pick(OTHERS)) : request()));
  const isEnding = oneIn(6);
  const bytes = Buffer.concat([...requests, isEnding ? ending() : Buffer.from(LAST)]);
  const ends = isEnding ? [] : Array.from({ length: pick([0, 0, 0, 1, 4, 40]) }, () => below(bytes.length)).sort((one, other) => one - other);
  const pieces = [...ends, bytes.length].map((end, n) => bytes.subarray(n ? ends[n - 1] : 0, end)).filter((piece) => piece.length > 0);
  return { pieces, answers: isEnding && requests.length + 1 };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** What a connection answers until it is closed, without what differs between any two nodes. */
async function exchange(connection, { pieces, isCut, answers }, first = "") {
  let skip = 0;
  if (first) {
    connection.write(first);
    const head = await connection.head();
    skip = head.length + Number(/content-length: (\d+)/i.exec(head)[1]);
    await until(() => connection.received.length >= skip, "the first answer");
  }
  for (const piece of pieces) {
    connection.write(piece);
    if (pieces.length > 1) await turn();
  }
  if (isCut) connection.socket.end();
  if (answers) {
    const got = () => connection.received.subarray(skip).toString("latin1").match(/HTTP\/1\.[01] (?!100)/g)?.length ?? 0;
    await until(() => connection.closed || got() >= answers, () => `${answers} answers; got ${connection.received}`);
    connection.write(LAST);
  }
  const text = (await connection.untilClosed()).slice(skip);
  const same = { date: /(?<=\r\ndate: )[^\r]+/gi, length: /(?<=\r\ncontent-length: )\d+/gi, offset: /(?<="offset":")[^"]+/g, time: /(?<="uptime_seconds":)\d+|(?<="timestamp":")[^"]+/g };
  return Object.entries(same).reduce((rest, [name, pattern]) => rest.replaceAll(pattern, name), text);
}

/** What /metrics says of publishing. */
async function counters(node) {
  const { text } = await node.get("/metrics");
  const names = /^roomcast_(events_total|events_refused_total|publish_answers_total|refusals_total|memory_bytes\{kind="(heads|bodies)")/;
  return text.split("\n").filter((line) => names.test(line) && !line.endsWith(" 0")).join("\n");
}

const shown = (text) => JSON.stringify(text).replaceAll(/(.)\1{20,}/g, "$1…").slice(0, 3_000);

// Made before any test begins, so that they are the same in every run.
const conversations = () => Array.from({ length: CASES }, conversation);
const [USUAL, LIMITED, STORED] = [conversations(), conversations(), conversations()];

async function compare(raw, [direct, behind], all) {
  for (let done = 0; done < all.length; done += AT_ONCE) {
    const cases = all.slice(done, done + AT_ONCE);
    const sent = cases.map(({ pieces }) => shown(pieces.map((piece) => piece.toString("latin1")).join("|")));
    await Promise.all(
      cases.map(async (one, n) => {
        const both = [exchange(raw(direct), one), exchange(raw(behind), one, FOR_HYPER)];
        const answers = await Promise.all(both).catch((error) => {
          throw new Error(`READER_SEED=${SEED} sent ${sent[n]}`, { cause: error });
        });
        assert.ok(answers[0] === answers[1], `READER_SEED=${SEED}\nsent ${sent[n]}\nfirst ${shown(answers[0])}\nbehind another ${shown(answers[1])}`);
      }),
    );
    let counted;
    const areEqual = async () => (counted = await Promise.all([direct, behind].map(counters)), counted[0] === counted[1]);
    await until(areEqual, () => `READER_SEED=${SEED}\nsent ${sent.join("\n")}\n${counted.join("\n\n")}`);
  }
}

suite("the two readers of POST /publish", () => {
  scenario("answer and count the same", async ({ node, raw }) => {
    await compare(raw, [await node(), await node()], USUAL);
  });

  scenario("with small limits, behind a proxy, for some hosts", async ({ node, raw }) => {
    const config = { publish: { max_body: "2kB", max_event: "1kB" }, http: { allowed_hosts: ["x", "127.0.0.1"], trusted_proxies: ["127.0.0.1"] } };
    await compare(raw, [await node(config), await node(config)], LIMITED);
  });

  scenario("with Redis", async ({ node, raw, redis }) => {
    const stores = [await redis(), await redis()];
    await compare(raw, await Promise.all(stores.map(({ url }) => node({ redis: { url, timeout: "30s" } }))), STORED);
  });
});
