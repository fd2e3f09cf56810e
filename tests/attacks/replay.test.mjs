// A client asks for a busy room's past: it costs the node a cursor, whether it reads fast, slowly or not at all.
import assert from "node:assert/strict";
import fs from "node:fs";
import net from "node:net";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { Polling } from "../harness/engine.mjs";
import { command, published } from "../harness/publish.mjs";
import { frame, PING, PONG, TEXT } from "../harness/raw.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const ROOM = "room:busy";
const BATCH = 500;
const token = tokenFor("reader");
// Longer than this process, which answers the bystander's pings, may be stopped.
const soon = { ping_interval: "500ms", ping_timeout: "4s" };

const mebibytes = async (node) => (await node.metric("process_resident_memory_bytes")) / 2 ** 20;
const closed = (node, reason) => node.metric(`roomcast_closes_total{reason="${reason}"}`);

/** Publishes numbered events of about `size` bytes; resolves with an offset before all of them. */
async function past(node, count, size) {
  const since = await published(node, { room: "room:other", event: "first", data: 0 });
  const filler = "x".repeat(size);
  for (let first = 1; first <= count; first += BATCH) {
    const length = Math.min(BATCH, count - first + 1);
    const events = Array.from({ length }, (_, index) => ({ room: ROOM, event: "past", data: [first + index, filler] }));
    await published(node, { events });
  }
  return since;
}

/** Joins with `since` on a raw connection that reads nothing from then on. If it is made to read, it answers pings. */
async function joinUnread({ raw }, node, since) {
  const client = raw(node);
  await client.upgrade(`/ws?token=${token}`);
  await client.text((text) => text.includes("welcome"));
  client.socket.pause();
  let seen = client.frames.length;
  client.socket.on("data", () => {
    for (const { opcode } of client.frames.slice(seen)) if (opcode === PING) client.write(frame(PONG));
    seen = client.frames.length;
  });
  client.sendText(JSON.stringify({ type: "join", room: ROOM, since }));
  return client;
}

/** Reads a little at a time, `bytes` a second, until `enough()`; resolves with the milliseconds it took. */
async function readSteadily(client, bytes, enough) {
  const { socket } = client;
  const began = Date.now();
  let taken = 0;
  // What is due by now, however late this is called.
  const take = () => {
    const due = Math.ceil((bytes * (Date.now() - began)) / 1000) - taken;
    const read = Math.min(Math.max(due, 0), socket.readableLength);
    if (read > 0) taken += read;
    socket.read(read);
  };
  const timer = setInterval(take, 20);
  try {
    await until(enough, () => `the end; got ${client.frames.length} frames`, 40_000);
  } finally {
    clearInterval(timer);
  }
  return Date.now() - began;
}

scenario("a replay that nobody reads holds a cursor: no memory, no delay for others, and pings do not keep it", async (s) => {
  const node = await s.node({ socketio: soon });
  const since = await past(node, 20_000, 700);
  const bystander = await witness(s, node);
  const before = await mebibytes(node);
  const attack = async () => {
    const clients = [];
    for (let number = 0; number < 10; number += 1) clients.push(await joinUnread(s, node, since));
    const pings = s.repeat(async () => {
      for (const client of clients) client.sendText('{"type":"ping"}');
      await new Promise((resolve) => setTimeout(resolve, 100));
    });
    const held = (await mebibytes(node)) - before;
    await until(async () => (await closed(node, "slow_consumer")) === clients.length, "all of them closed", 20_000);
    await pings.stop();
    return held;
  };
  const held = await bystander.during(attack());
  assert.ok(held < 20, `${held.toFixed(1)} MiB for ten replays of 14 MB each`);
  bystander.unharmed();
});

scenario("a replay that is read slowly and steadily arrives whole, over several ping timeouts, and live events follow it", async (s) => {
  // A pause of a busy machine is no end of the steady reading.
  const node = await s.node({ socketio: soon });
  const count = 12_000;
  const since = await past(node, count, 100);
  const client = await joinUnread(s, node, since);
  let live = 0;
  const publisher = s.repeat(async () => {
    live += 1;
    await published(node, { room: ROOM, event: "past", data: [count + live, ""] });
  });
  // Its answer does not wait for the end of the replay.
  client.sendText('{"type":"event","event":"nobody knows it","id":7}');
  const messages = () => client.texts.map((text) => JSON.parse(text));
  const numbers = () => messages().filter(({ event }) => event === "past").map(({ data }) => data[0]);
  const took = await readSteadily(client, 150_000, () => client.closed || client.frames.length > count);
  await publisher.stop();
  client.socket.resume();
  const last = () => client.frames.findLast(({ opcode }) => opcode === TEXT).payload;
  await until(() => client.closed || last().includes(`[${count + live},`), () => `${numbers().length} of ${count + live}`);
  assert.deepEqual(numbers(), Array.from({ length: count + live }, (_, index) => index + 1));
  assert.ok(took > 10_000, `${took} ms is not slow`);
  const answer = messages().findIndex(({ type }) => type === "ack");
  assert.ok(answer > 0 && answer < count / 2, `the answer came at ${answer}`);
});

scenario("who leaves a room during a replay gets nothing more of it, and who is made to leave gets what it had before", async (s) => {
  const node = await s.node();
  const since = await past(node, 10_000, 700);
  const client = await joinUnread(s, node, since);
  const send = (message) => client.sendText(JSON.stringify(message));
  for (const room of ["room:left", "room:taken"]) send({ type: "join", room });
  const members = async (room) => (await node.get(`/rooms/${room}`, { authorization: `Bearer ${KEY}` })).json().connections;
  await until(async () => (await members("room:left")) + (await members("room:taken")) === 2, "both rooms joined");
  const events = ["room:left", "room:taken"].flatMap((room) => [1, 2, 3].map((n) => ({ room, event: "early", data: n })));
  await published(node, { events });
  send({ type: "leave", room: "room:left" });
  await command(node, "/leave", { user: "reader", room: "room:taken" });
  await until(async () => (await members("room:left")) + (await members("room:taken")) === 0, "both rooms left");
  await published(node, { events: events.map((event) => ({ ...event, event: "outside" })) });
  send({ type: "join", room: "room:left" });
  await until(async () => (await members("room:left")) === 1, "joined again");
  await published(node, { room: "room:left", event: "late", data: 4 });
  client.socket.resume();
  const got = () => client.texts.map((text) => JSON.parse(text)).filter(({ room }) => room !== ROOM);
  await until(() => got().some(({ event }) => event === "late"), () => `the end; got ${client.texts.length} texts`);
  const names = got().filter(({ type }) => type === "event").map(({ room, event, data }) => `${room} ${event} ${data}`);
  assert.deepEqual(names, [...[1, 2, 3].map((n) => `room:taken early ${n}`), "room:left late 4"]);
});

scenario("replays of a Socket.IO client and of a stream arrive whole and continue where they were", async (s) => {
  const node = await s.node();
  const client = await s.io(node, { token, transports: ["websocket"] }).connected();
  await client.join(ROOM);
  await published(node, { room: ROOM, event: "past", data: [0, ""] });
  await client.event("past");
  client.socket.io.engine.close();
  const count = 5_000;
  const since = await past(node, count, 100);
  const numbers = () => client.argsOf("past").map(([[number]]) => number);
  await until(() => numbers().length > count, () => `${numbers().length} of ${count + 1}`);
  assert.deepEqual(numbers(), Array.from({ length: count + 1 }, (_, index) => index));
  assert.equal(client.socket.recovered, true);
  const stream = await s.sse(node, { token, rooms: [ROOM], query: { lastEventId: since } }).answered();
  await until(() => stream.eventsOf("past").length === count, () => `${stream.eventsOf("past").length} of ${count}`);
  await published(node, { room: ROOM, event: "live", data: 1 });
  await Promise.all([stream.event("live"), client.event("live")]);
  assert.equal(stream.eventsOf("past").length, count);
});

scenario("a flood overtakes the replay of a Socket.IO client: it is closed, connects a second time and learns that it missed something", async (s) => {
  const node = await s.node({ recovery: { window_bytes: "2MB" } });
  const proxy = await s.proxy(node);
  const client = await (await s.io(proxy, { token, transports: ["websocket"] }).connected()).join(ROOM);
  await published(node, { room: ROOM, event: "past", data: [0, ""] });
  await client.event("past");
  const recovered = [];
  client.socket.on("connect", () => {
    recovered.push(client.socket.recovered);
    if (recovered.length === 1) proxy.stall();
  });
  client.socket.io.reconnection(false);
  proxy.cut();
  await client.disconnected();
  await past(node, 800, 1_500);
  client.socket.io.reconnection(true);
  client.socket.connect();
  await until(() => recovered.length === 1, "the client that is back");
  await past(node, 3_000, 1_500);
  proxy.resume();
  await until(async () => (await closed(node, "slow_consumer")) === 1, "closed");
  await until(() => recovered.length === 2, "the second connection");
  assert.deepEqual(recovered, [true, false]);
  await published(node, { room: "user:reader", event: "after", data: 1 });
  await client.event("after");
});

/** Bytes that the kernel has not sent yet, or that are not confirmed, from one local port to another. */
function unsent(from, to) {
  const port = (number) => `:${number.toString(16).toUpperCase().padStart(4, "0")}`;
  const lines = ["tcp", "tcp6"].flatMap((file) => fs.readFileSync(`/proc/net/${file}`, "latin1").split("\n"));
  const [, , , , queues] = lines.map((line) => line.trim().split(/\s+/)).find((fields) => fields[1]?.endsWith(port(from)) && fields[2]?.endsWith(port(to))) ?? [];
  return queues && parseInt(queues.split(":")[0], 16);
}

scenario("the kernel holds little of a stream's replay, so that a slow reader is seen to read", async (s) => {
  const node = await s.node();
  const since = await past(node, 6_000, 4_000);
  const client = net.connect({ port: node.port, host: "127.0.0.1" });
  s.keep({ close: () => client.destroy() });
  client.on("error", () => {});
  client.write(`GET /sse?token=${token}&room=${ROOM}&lastEventId=${since} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`);
  client.pause();
  await until(() => client.localPort, "a connection");
  let [queued, changed, looks] = [0, Date.now(), 0];
  // A look at thousands of sockets may take long.
  const isStable = () => {
    const now = unsent(node.port, client.localPort);
    [queued, changed, looks] = now === queued ? [queued, changed, looks + 1] : [now, Date.now(), 0];
    return queued > 0 && looks >= 5 && Date.now() - changed >= 200;
  };
  await until(isStable, () => `a full socket: ${queued} after ${looks} equal looks`, 20_000);
  assert.ok(queued < 512 << 10, `${queued} bytes wait in the kernel`);
});

scenario("a polling client that only sends, and never takes what waits for it, is closed", async (s) => {
  const node = await s.node({ socketio: soon });
  const client = await new Polling(node).open();
  await client.join({ token });
  await published(node, { room: "user:reader", event: "waits", data: 1 });
  // Pongs that answer nothing do not keep it.
  const pongs = s.repeat(() => client.post("3"));
  await until(async () => (await closed(node, "slow_consumer")) === 1, "closed", 20_000);
  await pongs.stop();
});
