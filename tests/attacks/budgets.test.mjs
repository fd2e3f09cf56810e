// Sessions that hold as much memory as they can, of each kind, on a node with a small `limits.memory`: it refuses, then closes
// the largest, and stays within its limit. The bystander notices nothing.
//
// By hand, with many: BUDGET_SESSIONS=20000 BUDGET_MEMORY=512 node --test budgets.test.mjs
import assert from "node:assert/strict";
import fs from "node:fs";
import { startBackend } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { enginePath, Polling } from "../harness/engine.mjs";
import { BINARY, frame, PING, PONG, TEXT } from "../harness/raw.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const MB = 1_000_000;
/** 64 MB more than an idle node has. */
const LIMIT = Number(process.env.BUDGET_MEMORY ?? 70) * MB;
const SESSIONS = Number(process.env.BUDGET_SESSIONS ?? 512);
const IS_CROWD = SESSIONS > 512;
const AT_ONCE = IS_CROWD ? 8 : 1;
/** What comes between two looks, and the allocator's own. */
const SLACK = 12 * MB;
/** Bytes that one hostile message holds. Larger ones would cost a debug build milliseconds each, which the bystander shares. */
const PIECE = 200_000;
const CONFIG = {
  limits: { memory: `${LIMIT}B` },
  recovery: { window_bytes: "1MB" },
  // It takes minutes until very many are there.
  ...(IS_CROWD && { socketio: { ping_interval: "1h" } }),
};

const counted = (node, reason) => node.metric(`roomcast_closes_total{reason="${reason}"}`);
const refused = (node) => node.metric('roomcast_refusals_total{reason="memory"}');

/** The process's own memory in bytes. */
function resident(node) {
  const status = fs.readFileSync(`/proc/${node.process.pid}/status`, "utf8");
  return 1024 * Number(/RssAnon:\s+(\d+) kB/.exec(status)[1]);
}

/** Runs `attack(n)` for each session, and answers the most memory that the node had. */
async function attacked(node, attack, sessions = SESSIONS) {
  let most = 0;
  const timer = setInterval(() => (most = Math.max(most, resident(node))), 10);
  try {
    let next = 0;
    const attacker = async () => {
      while (next < sessions) {
        // A refusal, or an end in the middle, is what the attack is about.
        await attack(next++).catch(() => {});
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, attacker));
    await until(() => resident(node) < LIMIT, "the memory below its limit");
  } finally {
    clearInterval(timer);
  }
  return most;
}

/** The attack with a bystander; `kind` is what the metric shows. */
function withinLimit(name, attackOf, { config = {}, sessions = SESSIONS, kind, small = false, each = 5_000 } = {}) {
  scenario(`${name} (${sessions} sessions)`, async (s) => {
    const overrides = typeof config === "function" ? await config(s) : config;
    const node = await s.node({ ...CONFIG, ...overrides, limits: { ...CONFIG.limits, ...overrides.limits } });
    const bystander = await witness(s, node);
    const attack = attackOf(s, node);
    let shown = 0;
    const looked = s.repeat(async () => (shown = Math.max(shown, await node.metric(`roomcast_memory_bytes{kind="${kind}"}`))));
    const attacking = attacked(node, attack, sessions);
    // A crowd that comes as fast as it can is about processors too: there the bystander is measured once it is there.
    const most = await (IS_CROWD ? attacking : bystander.during(attacking));
    if (IS_CROWD) await bystander.during(Promise.resolve());
    await looked.stop();
    assert.ok(most < LIMIT + SLACK, `${most / MB} MB of ${LIMIT / MB}`);
    console.log(`# ${name}: ${Math.round(most / MB)} MB at most, ${Math.round(shown / MB)} MB of them ${kind}, ${await refused(node)} refused, ${await counted(node, "memory")} closed`);
    assert.ok(shown > sessions * each || shown > LIMIT / 4, `roomcast_memory_bytes{kind="${kind}"} showed ${shown}`);
    assert.ok(small || (await refused(node)) > 0 || (await counted(node, "memory")) > 0, "nothing was refused and nothing closed");
    bystander.unharmed();
  }, { timeout: IS_CROWD ? 900_000 : 120_000 });
}

/** A raw socket after its handshake; it ends where that was refused. */
async function opened(s, node, path) {
  const socket = s.raw(node);
  await socket.upgrade(path);
  if (socket.status === 101) return socket;
  socket.close();
  throw new Error(`refused with ${socket.status}`);
}

/** A raw `/ws` socket with its session. */
async function plainSocket(s, node, user) {
  const socket = await opened(s, node, `/ws?token=${tokenFor(user)}`);
  await socket.text((text) => text.includes("welcome"));
  return socket;
}

/** A raw Socket.IO socket with its session. */
async function ioSocket(s, node, user) {
  const socket = await opened(s, node, enginePath({ transport: "websocket" }));
  socket.sendText(`40${JSON.stringify({ token: tokenFor(user) })}`);
  await socket.text((text) => text.startsWith("40"));
  return socket;
}

/** Completes when the kernel has the bytes of a socket, or it is closed. */
const written = (socket) => until(() => socket.socket.writableLength === 0 || socket.closed, "the bytes written");

// Masked once: that costs this process more than the node.
const payload = "x".repeat(PIECE);
const half = frame(TEXT, payload, { announce: PIECE + 1 });
const attachment = frame(BINARY, payload);
const message = frame(TEXT, JSON.stringify({ type: "event", event: "ask", data: "x".repeat(40_000) }));

withinLimit("half messages: a frame that is never finished", (s, node) => async (n) => {
  const socket = await plainSocket(s, node, `hostile-${n}`);
  socket.write(half);
  await written(socket);
}, { kind: "unfinished" });

withinLimit("half attachments: the second never comes", (s, node) => async (n) => {
  const socket = await ioSocket(s, node, `hostile-${n}`);
  const place = (num) => ({ _placeholder: true, num });
  socket.sendText(`452-${JSON.stringify(["echo", place(0), place(1)])}`);
  socket.write(attachment);
  await written(socket);
}, { kind: "unfinished" });

withinLimit("slow readers: long-polling clients that ask and never read", (s, node) => async (n) => {
  const polling = await new Polling(node).open();
  await polling.post(`40${JSON.stringify({ token: tokenFor(`hostile-${n}`) })}`);
  const { text } = await polling.get();
  if (!text.includes("40{")) throw new Error(`no session: ${text}`);
  await polling.post(`42["echo","${payload}"]`);
}, { kind: "outbox" });

const grown = frame(TEXT, "x".repeat(900_000), { announce: 900_001 });

scenario("sessions that were let in grow: new work is refused, then the largest owners are closed, and the others go on", async (s) => {
  // A tenth of it lies between refusing and closing: more than what one that grows takes for a moment.
  const limit = 100 * MB;
  const node = await s.node({ ...CONFIG, limits: { memory: `${limit}B` } });
  const bystander = await witness(s, node);
  // Each user has two, which count together.
  const hostile = [];
  for (let n = 0; n < 140; n += 1) hostile.push(await plainSocket(s, node, `hostile-${n % 70}`));
  const modest = await plainSocket(s, node, "modest");
  modest.write(frame(TEXT, "x".repeat(100_000), { announce: 100_001 }));
  const reader = await s.ws(node, { token: tokenFor("reader") }).welcomed();
  const { offset } = await reader.ask({ type: "join", room: "room:a" });

  const rest = hostile.values();
  /** Whether there was one more that could grow. */
  const grow = async () => {
    const { value: socket } = rest.next();
    if (!socket) return false;
    socket.write(grown);
    await written(socket);
    return true;
  };
  // Right at the limit, what the process has also goes down again by some pages: one more grows where a request was let in.
  const refusalOf = async (ask) => {
    for (;;) {
      const { refusal } = await ask();
      if (refusal) return refusal;
      assert.ok(await grow(), "nothing was refused");
    }
  };
  const request = async (path) => {
    const answer = await node.get(path);
    return { refusal: answer.status === 503 && answer };
  };
  const connect = async () => {
    const client = s.ws(node, { token: tokenFor("7") });
    await until(() => client.end || client.messages.length > 0, "a session, or a refusal");
    client.close();
    return { refusal: client.end?.status === 503 };
  };
  const join = async () => {
    const answer = await reader.ask({ type: "join", room: "room:a", since: offset });
    return { refusal: answer.code === "overloaded" && answer };
  };

  await bystander.during((async () => {
    await refusalOf(() => request("/sse?room=a"));
    const answer = await refusalOf(() => request(enginePath()));
    assert.deepEqual([answer.json().error.code, answer.headers["retry-after"]], ["overloaded", "10"]);
    await refusalOf(connect);
    assert.equal((await refusalOf(join)).retry_after_ms, 10_000);
  })());
  reader.send({ type: "auth", token: tokenFor("reader") });
  await until(() => reader.messages.filter(({ type }) => type === "welcome").length === 2, "the answer to a fresh token");
  assert.equal((await reader.ask({ type: "join", room: "room:b" })).type, "joined");
  assert.equal(await counted(node, "memory"), 0);

  await bystander.during((async () => {
    // More would fill what the closing of the largest gave back.
    while (!hostile.some(({ closed }) => closed) && (await grow()));
    await until(() => hostile.some((socket) => socket.closed), "the largest closed");
    await until(async () => (await node.get("/sse?room=a")).status === 401, "new work let in again");
  })());
  const closed = hostile.find((socket) => socket.closed);
  assert.ok(closed.texts.some((text) => text.includes('"closing"') && text.includes('"memory"')), `${closed.texts}`);
  assert.equal(await closed.closeCode(), 1013);
  assert.deepEqual([modest.closed, reader.end], [undefined, undefined]);
  await until(() => resident(node) < limit, "the memory given back");
  console.log(`# grown: ${Math.round(resident(node) / MB)} MB at the end, ${await counted(node, "memory")} closed`);
  bystander.unharmed();
});

// A few kB each, which the limits of one session bound: only very many of them reach the node's.
const filler = "x".repeat(6_000);

withinLimit("handshake auth that is kept", (s, node) => async (n) => {
  const socket = await opened(s, node, enginePath({ transport: "websocket" }));
  socket.sendText(`40${JSON.stringify({ token: tokenFor(`hostile-${n}`), filler })}`);
  await socket.text((text) => text.startsWith("40"));
  // What no rule uses is not kept.
}, { kind: "handshake", small: true, config: { on: [{ event: "echo", ack: ["{auth.filler}"] }] } });

// The claims of a token are not kept for them.
withinLimit("sessions that wait to be resumed", (s, node) => async (n) => {
  const socket = await opened(s, node, enginePath({ transport: "websocket" }));
  socket.sendText(`40${JSON.stringify({ token: tokenFor(`hostile-${n}`, { filler }) })}`);
  await socket.text((text) => text.startsWith("40"));
  socket.close();
}, { kind: "parked", small: true, each: 200, config: { recovery: { window_bytes: "1GB" } } });

withinLimit("messages behind a backend that hangs", (s, node) => async (n) => {
  const socket = await plainSocket(s, node, `hostile-${n}`);
  socket.sendText(JSON.stringify({ type: "event", event: "ask" }));
  const pongs = () => socket.frames.filter(({ opcode }) => opcode === PONG).length;
  for (let piece = 1; piece <= 350 && !socket.closed; piece += 1) {
    socket.write(message);
    if (piece % 4 === 0) socket.write(frame(PING));
    if (piece % 4 > 0) continue;
    // Few at a time: this is about memory, not about the time to read them.
    await until(() => 4 * pongs() >= piece || socket.closed, "a pong");
  }
}, {
  kind: "pending",
  sessions: IS_CROWD ? SESSIONS : 8,
  config: async (s) => {
    const backend = s.serve(await startBackend());
    backend.answer = () => () => {};
    // Its own queue is so large that only `limits.memory` bounds it.
    return { ...backend.config({ timeout: "60s", queue_bytes: "10GB", queue: 1_000_000, queue_per_user: 10_000 }), on: [{ event: "ask", forward: true }, { event: "echo", ack: ["{args}"] }] };
  },
});
