// How long a stop takes while Redis is down.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

/** A node with clients, presence, disconnect rules and emitters: all that a stop has to tell Redis. */
async function busyNode(node, io, ws, redis) {
  const one = await node({
    redis: { url: redis.url, emitter_key: "socket.io" },
    shutdown: { pause: "0s", drain: "100ms", timeout: "1m" },
    rooms: [{ match: "user:{user}", join: "auto", presence: true }, { match: "room:<name>", join: "allow" }],
    on: [{ event: "disconnect", emit: [{ room: "room:a", event: "gone", args: ["{user}"] }] }],
  });
  await io(one, { token: tokenFor("7") }).connected();
  await ws(one, { token: tokenFor("8") }).welcomed();
  return one;
}

/** Long before `shutdown.timeout`, also on a machine that is busy with others. */
const SOON = 15_000;

/** Stops the node, which must not wait for Redis. */
async function assertStops(one) {
  assert.deepEqual(await one.stop("SIGTERM", SOON), { code: 0, signal: null });
}

suite("stopping without Redis", () => {
  scenario("a node stops in time after Redis was killed", async ({ node, io, ws, redis }) => {
    const server = await redis();
    const one = await busyNode(node, io, ws, server);
    await server.stop("SIGKILL");
    await until(() => one.answers("/health", 503), "/health answering 503");
    await assertStops(one);
  });

  scenario("a node stops in time while Redis hangs", async ({ node, io, ws, redis }) => {
    const server = await redis();
    const one = await busyNode(node, io, ws, server);
    server.signal("SIGSTOP");
    await until(() => one.answers("/health", 503), "/health answering 503");
    await assertStops(one);
    server.signal("SIGCONT");
  });

  scenario("a node stops in time if Redis never ran", async ({ node, redis }) => {
    const server = await redis({ start: false });
    const one = await node({ redis: { url: server.url }, shutdown: { pause: "0s", drain: "1m", timeout: "2m" } }, { ready: false });
    await assertStops(one);
  });

  scenario("a stop is quick while Redis is gone, and with it the backend's stream", async ({ node, ws, redis }) => {
    const server = await redis();
    const one = await node({
      redis: { url: server.url },
      backend: { stream: "roomcast:inbox", notify: ["disconnect"] },
      shutdown: { pause: "0s", drain: "100ms", timeout: "1m" },
    });
    await ws(one, { token: tokenFor("8") }).welcomed();
    await server.stop("SIGKILL");
    await until(() => one.answers("/health", 503), "/health answering 503");
    await assertStops(one);
  });

  scenario("with Redis, a stop notifies the other nodes and the backend", async ({ node, io, redis, serve }) => {
    const backend = serve(await startBackend());
    const server = await redis();
    const settings = { redis: { url: server.url }, ...backend.config({ notify: ["disconnect"] }) };
    const [one, other] = [await node(settings), await node(settings)];
    const client = await io(one, { token: tokenFor("7"), reconnection: false }).connected();
    await one.stop();
    await client.disconnected();
    await backend.call("disconnect");
    assert.ok(other.output !== undefined);
  });
});
