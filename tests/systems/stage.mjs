// What every system has: a Redis, its backend, and two nodes with its own roomcast.toml behind a balancer without sticky
// sessions.
import path from "node:path";
import { RoundRobin } from "../harness/balancer.mjs";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { startRedis } from "../harness/redis.mjs";
import { tokenFor } from "../harness/token.mjs";
import { Proxy } from "../harness/proxy.mjs";
import { watchIo } from "../harness/clients.mjs";

export const EXAMPLES = path.resolve(import.meta.dirname, "../../examples");
export const SYSTEMS = ["branchbase", "direct-messaging", "worklamp", "stockent", "stm"];
export const fileOf = (system) => path.join(EXAMPLES, system, "roomcast.toml");

export const SECRETS = { jwt: "the JWT secret of a REST API, 32 bytes or more", webhook: "what signs the webhooks, 32 bytes or more" };
export const KEY = "a-publish-key-0123456789-0123456789";
export const FRONTEND = "https://app.example.com";

/** The environment that the deployment sets; the rest is in the system's file. */
export const environment = ({ redisUrl, backendUrl, ...more } = {}) => ({
  JWT_SECRET: SECRETS.jwt,
  FRONTEND_URL: FRONTEND,
  ROOMCAST_PUBLISH__KEYS: KEY,
  ...(redisUrl && { REDIS_URL: redisUrl }),
  ...(backendUrl && { ROOMCAST_BACKEND__URL: backendUrl, ROOMCAST_BACKEND__SECRET: SECRETS.webhook }),
  // Tests need not wait for load balancers.
  ROOMCAST_SHUTDOWN__PAUSE: "0s",
  ROOMCAST_SHUTDOWN__DRAIN: "100ms",
  ...more,
});

/** How a frontend may connect. The last one is the client's default. */
export const TRANSPORTS = {
  websocket: { transports: ["websocket"] },
  polling: { transports: ["polling"] },
  "polling, then upgraded": {},
};

/** A token of the system's REST API. */
export const jwt = (user, claims) => tokenFor(user, claims, { key: SECRETS.jwt });

/**
 * Starts all of it. `start({ redisUrl, roomcastUrl })` resolves with the backend, or `undefined`; `env` is added to the
 * nodes' environment.
 */
export async function stage(s, system, { start, env = {}, nodes: count = 2 } = {}) {
  const redis = s.serve(await startRedis());
  const ports = [];
  for (let at = 0; at < count; at += 1) ports.push(await freePort());
  // Frontends and the backend connect here; each new connection goes to the next node.
  const roomcast = s.keep(await new Proxy(new RoundRobin(ports.map((port) => ({ port })))).open());
  const backend = await start?.({ redisUrl: redis.url, roomcastUrl: roomcast.url });
  if (backend) s.serve(backend);
  const settings = environment({ redisUrl: redis.url, backendUrl: backend?.webhookUrl, ...env });
  const nodes = await Promise.all(
    ports.map((port) => s.node({}, { file: fileOf(system), port, env: { ROOMCAST_LISTEN: `127.0.0.1:${port}`, ...settings } })),
  );
  return { redis, nodes, roomcast, backend, settings };
}

/** Records what a frontend's socket receives; closed with the test. */
export function watch(s, socket) {
  return s.keep(watchIo(socket));
}

/** Each name and its arguments, without the offsets that recovery adds. */
export const received = (client) => client.events.map(({ name, args }) => [name, ...args]);

/** The sum of a series of /metrics over all nodes. */
export async function total(nodes, series) {
  const values = await Promise.all(nodes.map((node) => node.metric(series)));
  return values.reduce((sum, value) => sum + value, 0);
}

/** Waits until the nodes are subscribed to Socket.IO emitters and one of them holds the lease to copy. */
export async function emittersSubscribed(redis, nodes) {
  await until(async () => (await redis.cli("CLIENT", "LIST", "TYPE", "pubsub")).split(" psub=3 ").length > nodes.length, "every node subscribed");
  await until(async () => (await redis.cli("EXISTS", "roomcast:{roomcast:events}:emitters")) === "1", "a node with the lease");
}
