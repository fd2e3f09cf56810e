// Encodes and decodes a table of packets with the real socket.io-parser and engine.io-parser and writes what they did to
// socketio.json and engineio.json, which Rust tests read. Run again after raising a version: npm ci && npm run capture.
// Bytes stand as {"$binary":"<base64>"}, roomcast's own notation. One entry a line, so that a change shows as one.
import { readFileSync, writeFileSync } from "node:fs";
import * as sio from "socket.io-parser";
import * as eio from "engine.io-parser";

const versions = JSON.parse(readFileSync(new URL("package.json", import.meta.url))).dependencies;

const bytes = (...values) => Buffer.from(values);

/** A value with its bytes in our notation. */
function noted(value) {
  if (Buffer.isBuffer(value)) return { $binary: value.toString("base64") };
  if (Array.isArray(value)) return value.map(noted);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, noted(inner)]));
  }
  return value;
}

const lines = (entries) => `[\n    ${entries.map((entry) => JSON.stringify(entry)).join(",\n    ")}\n  ]`;

// What a server sends: the packet, and the frames that the real encoder makes of it.
const { CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR } = sio.PacketType;
const tenBuffers = Array.from({ length: 10 }, (_, n) => bytes(n, 255 - n));
const packets = [
  { type: CONNECT, nsp: "/", data: { sid: "k5BgSE8_WIV2xNDjAAAA" } },
  { type: CONNECT, nsp: "/", data: { sid: "_Nwh1ZYOI6N0zARaAAAC", pid: "spzut2OO_aEKAFe7AAAD" } },
  { type: CONNECT, nsp: "/admin", data: { sid: "k5BgSE8_WIV2xNDjAAAA" } },
  { type: CONNECT_ERROR, nsp: "/nope", data: { message: "Invalid namespace" } },
  { type: CONNECT_ERROR, nsp: "/deny", data: { message: 'no "pe"\n', data: { content: "retry", n: 1 } } },
  { type: CONNECT_ERROR, nsp: "/", data: { message: "é\u2028\u0001" } },
  { type: DISCONNECT, nsp: "/" },
  { type: DISCONNECT, nsp: "/admin" },
  { type: EVENT, nsp: "/", data: ["x", 1] },
  { type: EVENT, nsp: "/", data: ["x"] },
  { type: EVENT, nsp: "/admin", data: ["x"] },
  { type: EVENT, nsp: "/", id: 0, data: ["q", 1] },
  { type: EVENT, nsp: "/admin", id: 12, data: ["ack", 1] },
  { type: EVENT, nsp: "/", data: ['q"u\\o\bt\te\u001f\u007f', { 'k"': [null, true, false, -1.5e-7, "é😀", "\u2028"] }] },
  { type: EVENT, nsp: "/", data: ["nested", [[[{ a: { b: [] } }]]], {}] },
  { type: EVENT, nsp: "/", data: ["off", 1, "1795225216959-0"] },
  { type: ACK, nsp: "/", id: 12, data: ["ok"] },
  { type: ACK, nsp: "/", id: 0, data: [] },
  { type: ACK, nsp: "/admin", id: 0, data: ["ok", { a: 1 }] },
  { type: EVENT, nsp: "/", data: ["bin", bytes(1, 2)] },
  { type: EVENT, nsp: "/", data: ["bin", bytes()] },
  { type: EVENT, nsp: "/admin", id: 7, data: ["ack", bytes(1), { n: bytes(4), deep: [[bytes(5, 6, 7)]] }, "tail"] },
  { type: EVENT, nsp: "/", data: ["ten", ...tenBuffers] },
  { type: ACK, nsp: "/", id: 12, data: ["ok", bytes(0, 255)] },
  { type: ACK, nsp: "/admin", id: 7, data: [{ a: bytes(9) }, bytes(8)] },
];

function encode(packet) {
  // Encoding puts placeholders into the packet itself, so it gets a copy.
  const frames = new sio.Encoder().encode({ ...packet });
  return { ...noted(packet), frames: frames.map(noted) };
}

// What a client may send: the frames, and what the real decoder says.
const b = bytes;
const ph = (num) => ({ _placeholder: true, num });
const bin = (count, data, ...attachments) => [`5${count}-${JSON.stringify(data)}`, ...attachments];
const inputs = [
  ["0"], ['0{"token":"123"}'], ["0/admin,"], ['0/admin,{"a":1}'], ["0/admin"], ["0/,"], ["0/"], ['0/,{"a":1}'],
  ["0[]"], ['0"x"'], ["0null"], ["05"], ["01{}"], ['0{"a":1'], ["0/admin?token=1,"], ['0/a/b-c.d?x=1&y=2,{"t":[1]}'],
  ["1"], ["1/admin,"], ["1/custom"], ["1{}"], ["17"], ["1[]"],
  ['2["x"]'], ['2["x",1]'], ['2["x" , {"a" : [1, 2]} ]'], ['2/admin,["x"]'], ['2/admin,12["ack",1]'], ['212["ack",1]'],
  ['20["q"]'], ['2007["q"]'], ['2/a,0["q"]'], ['2["x"] '], ['2 ["x"]'], ['2\n["x"]'], ['2 5 ["x"]'], ['21 2["x"]'],
  ['2100000000000000000000["x"]'], ['299999999999999999999["x"]'], ['29007199254740993["x"]'],
  ['212345678901234567["x"]'], ["2"], ["21"], ["2/admin,"], ["2/admin"], ["2/admin,5"],
  ["2{}"], ["2[]"], ["2[null]"], ["2[true]"], ["2[{}]"], ["2[[]]"], ['2["x"'], ['2abc["x"]'], ['2-1["x"]'],
  ['2["x",]'], ['2["x"1]'], ['2["x" 1]'], ['2["x"]]'], ['2["x"],1'], ['2[,"x"]'], ['2["x",,1]'], ['2["x";1]'],
  ["2[7]"], ["2[7,1]"], ["2[-1.5e3,1]"], ["2[0]"], ["2[01]"], ["2[1.]"], ["2[+1]"], ["2[1 ,2]"], ["2[1 2]"], ["2[NaN]"],
  ['2["connect"]'], ['2["connect_error"]'], ['2["disconnect",1]'], ['2["disconnecting"]'], ['2["newListener"]'],
  ['2["removeListener"]'], ['2["\\u0063onnect"]'], ['2["connection"]'], ['2["error"]'], ['2[""]'], ['2["__proto__",1]'],
  ['2["a\\"b\\\\",1]'], ['2["é😀","\\ud83d\\ude00"]'], ['2["x","\\ud800"]'], ["2['x']"], ['2["x\u0001"]'], ['2["x","\t"]'],
  ['2["x",{"_placeholder":true,"num":0}]'], ['2["x",9007199254740993]'],
  ['3999[]'], ['312["ok"]'], ["312"], ['3/admin,0["ok"]'], ["31{}"], ['31"x"'], ["31null"], ['31[1,]'],
  ["7[]"], ["abc"], ["9"], ["-1"], ["é"],
  bin(1, ["x", ph(0)], b(1, 2)), bin(2, ["x", ph(1), ph(0)], b(1), b(2)), bin(2, ["x", ph(0)], b(1), b(2)),
  bin(1, ["x"], b(1)), bin(1, ["x", { a: [ph(0)], z: "é" }], b()), bin(3, ["x", [ph(0), ph(1)], { p: ph(2) }], b(1), b(2), b(3)),
  bin(10, ["x", ...Array.from({ length: 10 }, (_, n) => ph(n))], ...tenBuffers), bin(1, [7, ph(0)], b(1)),
  ['51-/admin,7["ack",{"_placeholder":true,"num":0}]', b(1)], ['61-12["ok",{"_placeholder":true,"num":0}]', b(1)],
  ['61-/admin,7[{"_placeholder":true,"num":0},{"_placeholder":false}]', b(1)],
  ['51-["x",{"num":0,"extra":[1,{"a":2}],"_placeholder":true}]', b(1)],
  ['51-["x",{"\\u005fplaceholder":true,"num":0}]', b(1)], ['51-["x","{\\"_placeholder\\":true,\\"num\\":9}"]', b(1)],
  bin(0, ["x"]), ['5["x"]'], ['5-["x"]'], ['5a-["x"]'], ['5-1-["x"]'], ['51.5-["x"]'], ["5"], ["51"], ["5100-[]"],
  bin(11, ["x"]), ['599999999999999999999999-["x"]'], bin(1, ["x", ph(1)], b(1)), bin(1, ["x", ph(-1)], b(1)),
  bin(1, ["x", ph("0")], b(1)), bin(1, ["x", ph(null)], b(1)), bin(1, ["x", { _placeholder: true }], b(1)),
  bin(1, ["connect", ph(0)], b(1)), bin(1, ["disconnecting"], b(1)), ['51-{"a":1}', b(1)], ["51-[]", b(1)],
  bin(2, ["x", ph(0)], b(1)), ['51-["x"]', '2["y"]'], ['51-["x"]', "1"], [b(1)], ['2["x"]', b(1)],
  [...bin(1, ["x", ph(0)], b(1)), b(2)], [...bin(1, ["x", ph(0)], b(1)), '2["y"]'],
];

function decode(frames) {
  const decoded = [];
  const decoder = new sio.Decoder();
  decoder.on("decoded", ({ type, nsp, id, data }) => {
    // The server turns an id into text when it echoes it.
    decoded.push({ type, nsp, ...(id !== undefined && { id: String(id) }), ...(data !== undefined && { data: noted(data) }) });
  });
  let error = null;
  try {
    for (const frame of frames) decoder.add(frame);
  } catch (thrown) {
    error = thrown.message;
  }
  return { frames: frames.map(noted), decoded, error };
}

writeFileSync(
  new URL("socketio.json", import.meta.url),
  `{\n  "versions": ${JSON.stringify(versions)},\n  "encoded": ${lines(packets.map(encode))},\n  "inputs": ${lines(inputs.map(decode))}\n}\n`,
);

// Engine.IO: packets one by one, and whole polling payloads.
const engine = [
  { type: "open", data: '{"sid":"s"}' }, { type: "close" }, { type: "ping" }, { type: "ping", data: "probe" }, { type: "pong" },
  { type: "pong", data: "probe" }, { type: "message", data: "hello" }, { type: "message", data: 'é"\u0000😀' },
  { type: "message", data: bytes(1, 2, 3, 4) }, { type: "message", data: bytes() }, { type: "upgrade" }, { type: "noop" },
];
const encodePacket = (packet) => new Promise((resolve) => eio.encodePacket(packet, false, resolve));
const encodePayload = (list) => new Promise((resolve) => eio.encodePayload(list, resolve));
const single = [];
for (const packet of engine) single.push({ ...noted(packet), text: await encodePacket(packet) });
const payload = await encodePayload(engine);
const texts = ["", "2foo", "7", "abc", " 4", "é", "4", "-", "4\u001e", "bAQI="];
const payloads = [payload, "", "\x1e", "3\x1e", "\x1e3", "3\x1eabc\x1e3", '451-["x",{"_placeholder":true,"num":0}]\x1ebAQIDBA=='];
const plain = (packet) => (packet.type === "error" ? null : noted(packet));
writeFileSync(
  new URL("engineio.json", import.meta.url),
  `{\n  "versions": ${JSON.stringify(versions)},\n  "encoded": ${lines(single)},\n` +
    `  "texts": ${lines(texts.map((text) => ({ text, packet: plain(eio.decodePacket(text)) })))},\n` +
    `  "payloads": ${lines(payloads.map((body) => ({ body, packets: eio.decodePayload(body).map(plain) })))}\n}\n`,
);
