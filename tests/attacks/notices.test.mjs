// Notices: who causes many loses their own, memory is bounded, and a stranger's arrive.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const BOUND = 500_000;

async function stage(s, more = {}, config = {}, port = 0) {
  const backend = s.serve(await startBackend(port));
  const node = await s.node({ ...backend.config({ notify: ["connect", "disconnect"], ...more }), ...config });
  const connect = (user, options) => s.io(node, { token: user && tokenFor(user), ...WEBSOCKET, ...options }).connected();
  return { backend, node, connect };
}

const dropped = (node, reason) => node.metric(`roomcast_drops_total{reason="${reason}"}`);
const after = (ms) => (response) => setTimeout(() => response.end("{}"), ms);

/** A client of `user` that comes and leaves again and again, until stopped. */
const flapping = (s, node, user) => s.repeat(async () => {
  const client = s.io(node, { token: tokenFor(user), ...WEBSOCKET });
  await client.connected();
  client.close();
});

scenario("30 connections of one user that leave and come lose nobody's notices, and a stranger's disconnect arrives at once", async (s) => {
  const { backend, node, connect } = await stage(s, { timeout: "20s" });
  const held = [];
  // None of the flood's after these is answered before the stranger's is there.
  const isHeld = ({ user }) => user === "flood" && backend.of("connect").filter((call) => call.user === "flood").length > 20;
  backend.answer = (call) => (isHeld(call) ? (response) => held.push(response) : after(5));
  const stranger = await connect("stranger");
  const { id } = stranger.socket;
  await until(() => backend.of("connect").some(({ session }) => session === id), "the stranger's connect");
  const bystander = await witness(s, node);
  const attack = Array.from({ length: 30 }, () => flapping(s, node, "flood"));
  await until(() => backend.of("connect").filter(({ user }) => user === "flood").length > 20, "the flood has begun");
  await until(async () => (await node.metric('roomcast_memory_bytes{kind="notices"}')) > 20_000, "more comes than is sent");
  stranger.close();
  await until(() => backend.of("disconnect").some(({ session }) => session === id), "the stranger's disconnect");
  assert.ok(held.length > 0, "while the flood's notices wait");
  backend.answer = () => ({});
  for (const response of held) response.end("{}");
  await Promise.all(attack.map((one) => one.stop()));
  bystander.unharmed();
  assert.deepEqual([await dropped(node, "notice"), await dropped(node, "notice_full")], [0, 0]);
});

scenario("reconnects in many rooms with the backend down stay in backend.notices_bytes; the largest source loses first, counted", async (s) => {
  const rooms = Array.from({ length: 250 }, (_, n) => ({ match: `${"x".repeat(100)}-${n}:{user}`, join: "auto" }));
  const port = await freePort();
  const { backend, node, connect } = await stage(s, { notices_bytes: `${BOUND / 1000}KB` }, { rooms }, port);
  const stranger = await connect("stranger");
  const { id } = stranger.socket;
  await until(() => backend.of("connect").length === 1, "the stranger's connect");
  backend.close();
  stranger.close();
  const held = [];
  for (let round = 0; round < 40; round += 1) {
    (await connect("flood")).close();
    held.push(await node.metric('roomcast_memory_bytes{kind="notices"}'));
  }
  assert.ok(Math.max(...held) <= BOUND && Math.max(...held) > BOUND / 2, `at most ${Math.max(...held)} bytes`);
  await until(async () => (await dropped(node, "notice_full")) > 40, "losses are counted");
  const back = s.serve(await startBackend(port));
  // The pauses between two attempts have grown meanwhile, up to half a minute.
  await until(() => back.of("disconnect").some(({ session }) => session === id), "the stranger's disconnect", 40_000);
  await until(async () => (await node.metric('roomcast_memory_bytes{kind="notices"}')) === 0, "everything is sent", 40_000);
  assert.equal(await dropped(node, "notice"), 0);
}, { timeout: 120_000 });

scenario("notices of several users are under way at once, those of one user in order, and one that hangs delays nobody else's", async (s) => {
  const { backend, connect } = await stage(s, { timeout: "20s" });
  let held;
  backend.answer = ({ user }) => (user === "hangs" && !held ? (response) => (held = response) : {});
  const slow = await connect("hangs");
  await until(() => held, "its connect is under way");
  slow.close();
  const other = await connect("other");
  other.close();
  await until(() => backend.of("disconnect").some(({ user }) => user === "other"), "the other's disconnect");
  assert.ok(!backend.of("disconnect").some(({ user }) => user === "hangs"), "after its connect");
  held.end("{}");
  await until(() => backend.of("disconnect").some(({ user }) => user === "hangs"), "its disconnect");
});

scenario("a session that flaps while its notices wait leaves the newest state, not each of its changes", async (s) => {
  const { backend, node, connect } = await stage(s, { timeout: "20s" }, { recovery: { window: "1m" } });
  const held = [];
  backend.answer = () => (response) => held.push(response);
  const client = await connect("7", { reconnectionDelay: 1, reconnectionDelayMax: 5 });
  await until(() => held.length === 1, "its connect is under way");
  for (let times = 1; times <= 20; times += 1) {
    client.socket.io.engine.close();
    await until(() => client.connects === times + 1, "connected again");
  }
  // The node may see the end of the last connection after the client has the next.
  await until(async () => (await dropped(node, "notice_merged")) >= 36, "notices that are merged");
  backend.answer = () => ({});
  held[0].end("{}");
  client.close();
  await until(() => backend.of("disconnect").length > 0 && backend.calls.at(-1).type === "disconnect" && backend.calls.at(-1).reason === "client close", "the last state");
  assert.ok(backend.calls.length <= 6, `${backend.calls.length} notices`);
});

scenario("502 for the notices of some users neither stops nor delays those of others", async (s) => {
  const { backend, connect } = await stage(s);
  backend.answer = ({ user }) => (/^hog/.test(user) ? { status: 502, body: "" } : {});
  await Promise.all(Array.from({ length: 20 }, (_, n) => connect(`hog-${n}`)));
  await until(() => backend.calls.length > 40, "retries");
  const times = [];
  for (let n = 0; n < 5; n += 1) {
    const begun = Date.now();
    await connect(`other-${n}`);
    await until(() => backend.of("connect").some(({ user }) => user === `other-${n}`), "the other's connect");
    times.push(Date.now() - begun);
  }
  // Of a machine that stops for a moment one of them tells, and not most of them.
  assert.ok(times.toSorted((a, b) => a - b)[2] < 2500, `${times} ms`);
});
