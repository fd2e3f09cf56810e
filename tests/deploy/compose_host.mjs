// Runs compose.yaml without Docker: the same commands, names, ports and mounted files, in namespaces of this process alone.
// Started by compose.test.mjs through compose_namespaces.sh, where /deploy is the folder of compose.yaml.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { parse } from "yaml";
import { connectWs } from "../harness/clients.mjs";
import { until, within } from "../harness/deadline.mjs";
import { post, request } from "../harness/http.mjs";
import { seconds } from "./tools.mjs";

const COMPOSE = path.join(import.meta.dirname, "../../deploy/compose/compose.yaml");
const { services } = parse(fs.readFileSync(COMPOSE, "utf8"));
/** The entry points of the images, and the user that each runs its command as. */
const IMAGES = {
  secrets: { user: 0 },
  api: { user: 0 },
  redis: { user: 0 },
  roomcast: { user: 65_532, entrypoint: [process.env.ROOMCAST_BIN] },
  nginx: { user: 0, command: ["nginx", "-e", "stderr", "-g", "daemon off;"] },
};

class Service {
  constructor(name) {
    const { command = [], environment = {} } = services[name];
    const { user, entrypoint = [], command: usual = [] } = IMAGES[name];
    const [program, ...args] = [...entrypoint, ...(command.length ? command : usual)];
    this.name = name;
    this.output = "";
    this.process = spawn(program, args, { cwd: "/data", uid: user, gid: user, env: { PATH: process.env.PATH, ...environment }, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (chunk) => (this.output += chunk));
    this.exited = new Promise((resolve) => {
      this.process.once("error", (error) => resolve(`${error}`));
      this.process.once("close", (code, signal) => resolve(code ?? signal));
    });
  }

  /** Within the time that Docker waits before it kills. */
  async stop() {
    this.process.kill("SIGTERM");
    return within(this.exited, `the end of ${this.name}`, seconds(services[this.name].stop_grace_period) * 1000);
  }
}

const started = [];
const start = (name) => (started.push(new Service(name)), started.at(-1));
const answers = (url) => until(async () => (await request(url).catch(() => undefined))?.status === 200, `${url} answering`, 30_000);

async function run() {
  assert.deepEqual(Object.keys(services).sort(), Object.keys(IMAGES).sort());
  assert.equal(await start("secrets").exited, 0);
  const made = fs.readFileSync("/secrets/jwt_secret", "utf8");
  assert.equal(await start("secrets").exited, 0);
  assert.equal(fs.readFileSync("/secrets/jwt_secret", "utf8"), made, "secrets are made once");

  start("redis");
  start("api");
  const roomcast = start("roomcast");
  await answers("http://roomcast:8080/health");
  // What the image's HEALTHCHECK runs; nginx waits for it.
  const { entrypoint, user } = IMAGES.roomcast;
  const health = spawnSync(entrypoint[0], ["health"], { cwd: "/etc/roomcast", uid: user, gid: user, env: services.roomcast.environment });
  assert.equal(health.status, 0, String(health.stderr));
  start("nginx");
  const site = { url: "http://nginx", socketUrl: "ws://nginx" };
  await answers(`${site.url}/token`);

  assert.match((await request(`${site.url}/`)).text, /<title>roomcast/);
  const { token } = (await request(`${site.url}/token?user=7`)).json();
  const client = connectWs(site, { token });
  await client.welcomed();
  await client.join("chat:lobby");
  assert.equal((await client.ask({ type: "join", room: "chat:secret" })).type, "error", "the API refuses it");
  assert.equal((await post(`${site.url}/messages`, { room: "chat:lobby", text: "hello" })).status, 200);
  assert.deepEqual((await client.event("message")).data, { text: "hello" });
  // What is for the backend and for operators is not behind the proxy.
  for (const path of ["/publish", "/metrics", "/health"]) assert.equal((await request(`${site.url}${path}`)).status, 404, path);
  client.close();
  assert.equal(await roomcast.stop(), 0, "roomcast drains and ends");
  console.log("the services of compose.yaml work together");
}

try {
  await run();
} catch (error) {
  for (const { name, output } of started) console.error(`--- ${name} ---\n${output}`);
  console.error(error);
  process.exit(1);
}
// The services are in a PID namespace with this process as its first, and end with it.
process.exit();
