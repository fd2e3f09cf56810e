// One roomcast process: the built binary on a free port with its own configuration.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { configure, toml } from "./config.mjs";
import { DEADLINE, until, within } from "./deadline.mjs";
import { request, trust } from "./http.mjs";
import { freePort } from "./port.mjs";

// With it, every node speaks TLS. Made by tests/proxies/run.sh, which also tells Node to trust it.
const CERTIFICATES = process.env.ROOMCAST_TLS && process.env.ROOMCAST_CERTIFICATES;
const EVERYWHERE = CERTIFICATES && { cert_file: `${CERTIFICATES}/certificate.pem`, key_file: `${CERTIFICATES}/key.pem` };

// Many nodes may start at once, each of a log with partitions.
const START_DEADLINE = 60_000;

export const BINARY = path.resolve(process.env.ROOMCAST_BIN ?? path.join(import.meta.dirname, "../../target/debug/roomcast"));

/** The folder of the binary under test, for commands that name it without a path. */
export const BINARY_FOLDER = path.dirname(BINARY);

/** A process whose output is recorded: roomcast, or another `command`. */
export class Daemon {
  /** `stderr`: a file descriptor that it gets instead of a pipe that is read. `stdin`: "pipe" to write to it. */
  constructor(args, env = {}, command = BINARY, { stderr = "pipe", stdin = "ignore" } = {}) {
    this.output = "";
    this.stdout = "";
    this.process = spawn(command, args, { env: cleanEnvironment(env), stdio: [stdin, "pipe", stderr] });
    this.process.stdout.on("data", (chunk) => (this.output += chunk, this.stdout += chunk));
    this.process.stderr?.on("data", (chunk) => (this.output += chunk));
    this.exited = new Promise((resolve) => {
      this.process.once("error", (error) => resolve({ code: null, error }));
      this.process.once("close", (code, signal) => resolve({ code, signal }));
    });
    this.exited.then((exit) => (this.exit = exit));
  }

  signal(name) {
    this.process.kill(name);
  }

  /** Sends SIGTERM (or another signal) and waits for the exit; a process that hangs is killed, and the test fails. */
  async stop(signal = "SIGTERM", deadline = DEADLINE) {
    this.stopping = true;
    if (!this.exit) this.signal(signal);
    try {
      return await within(this.exited, `exit after ${signal}`, deadline);
    } catch (error) {
      this.signal("SIGKILL");
      await this.exited;
      throw error;
    }
  }

  /** Waits until the output has this text, or fits this pattern: log lines come from a thread of their own. */
  says(what) {
    const has = typeof what === "string" ? () => this.output.includes(what) : () => what.test(this.output);
    return until(has, () => `${what} in the output; got ${this.output}`);
  }

  assertNoPanic() {
    assert.doesNotMatch(this.output, /panicked at/, "the process panicked");
  }
}

// The environment of the machine (PORT, JWT_SECRET, REDIS_URL …) must not reach the process.
function cleanEnvironment(extra) {
  const { PATH, HOME, TMPDIR } = process.env;
  return { PATH, HOME, ...(TMPDIR && { TMPDIR }), RUST_BACKTRACE: "1", ...extra };
}

/** Runs a command that exits by itself: `{ code, stdout, output }`. */
export async function roomcast(args, env) {
  const command = new Daemon(args, env);
  const { code, error } = await within(command.exited, `the end of roomcast ${args.join(" ")}`).finally(() => command.signal("SIGKILL"));
  if (error) throw error;
  command.assertNoPanic();
  return { code, stdout: command.stdout, output: command.output };
}

/** The value of one series of /metrics, 0 where it is missing. */
export async function metricOf(url, series) {
  const { text } = await request(`${url}/metrics`);
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
  return line ? Number(line.slice(series.length + 1)) : 0;
}

export class Node extends Daemon {
  constructor(port, directory, file, env, outputs, binary = BINARY, tls = undefined) {
    super(["serve", "--config", file], env, binary, outputs);
    this.file = file;
    this.port = port;
    this.directory = directory;
    this.tls = tls;
    this.url = `${tls ? "https" : "http"}://127.0.0.1:${port}`;
    this.socketUrl = `${tls ? "wss" : "ws"}://127.0.0.1:${port}`;
    if (tls) trust(this.url, fs.readFileSync(tls.cert_file));
  }

  get = (pathname, headers) => request(this.url + pathname, { headers });

  async answers(pathname, status = 200) {
    if (this.exit) throw new Error(`roomcast ended: ${JSON.stringify(this.exit)}`);
    const answer = await this.get(pathname).catch(() => undefined);
    return answer?.status === status && answer;
  }

  metric = (series) => metricOf(this.url, series);

  /** Waits until a series of /metrics has this value: a client may learn of what happened before it is counted. */
  metricIs(series, value) {
    let last;
    return until(async () => (last = await this.metric(series)) === value, () => `${series} ${value}; it is ${last}`);
  }

  /** Open connections of one protocol: `socketio`, `ws` or `sse`. */
  async connections(protocol) {
    const { text } = await this.get("/metrics");
    const series = text.split("\n").filter((line) => line.startsWith("roomcast_connections{") && line.includes(`protocol="${protocol}"`));
    return series.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
  }

  async stop(...how) {
    try {
      return await super.stop(...how);
    } finally {
      fs.rmSync(this.directory, { recursive: true, force: true });
    }
  }
}

/**
 * Starts a node and waits until it is live and, unless `ready: false`, ready. `overrides` are merged into the usual
 * configuration, `port` is the port of a node that is started again, and with `file` that file is the configuration;
 * `stderr` is a file descriptor instead of a pipe, `binary` another release.
 */
export async function startNode(overrides = {}, { ready = true, env, port, file, stderr, binary } = {}) {
  port ??= await freePort();
  const { tls = EVERYWHERE, ...others } = overrides;
  const files = tls ? { cert_file: tls.cert_file, key_file: tls.key_file } : undefined;
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-e2e-"));
  if (!file) {
    file = path.join(directory, "roomcast.toml");
    fs.writeFileSync(file, toml({ listen: `127.0.0.1:${port}`, ...configure({ ...others, tls: files }) }));
  }
  const node = new Node(port, directory, file, env, { stderr }, binary, tls);
  try {
    await until(() => node.answers("/health/live"), "/health/live answering 200", START_DEADLINE);
    if (ready) await until(() => node.answers("/health"), "/health answering 200", START_DEADLINE);
  } catch (error) {
    await node.stop("SIGKILL").catch(() => {});
    error.message += `\n--- output of roomcast ---\n${node.output}`;
    throw error;
  }
  return node;
}
