// A real redis-server on a free port, with its own directory.
import { execFile, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { until, within } from "./deadline.mjs";
import { freePort } from "./port.mjs";

const run = promisify(execFile);

export class Redis {
  /** `durable`: with an append-only file, synced `always` (or `true`) or `everysec`; `cluster`: as a member of a Cluster that is still to
   * be made; `args`: more arguments of redis-server. */
  constructor(port, { durable = false, cluster = false, args = [] } = {}) {
    this.port = port;
    this.url = `redis://127.0.0.1:${port}/0`;
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-redis-"));
    this.durable = durable;
    this.cluster = cluster;
    this.args = args;
  }

  /** Starts it (again) on the contents of its directory, with `args` instead of the usual arguments. */
  async start(args) {
    const sync = this.durable === "everysec" ? "everysec" : "always";
    const appendOnly = this.durable ? ["yes", "--appendfsync", sync] : ["no"];
    // The bus would be at the port and 10000, where outgoing connections of others may be.
    if (this.cluster) this.bus ??= await freePort();
    const cluster = this.cluster ? ["--cluster-enabled", "yes", "--cluster-port", this.bus] : [];
    const all = args ?? ["--port", this.port, "--bind", "127.0.0.1", "--dir", this.directory, "--save", "", "--appendonly", ...appendOnly, ...cluster, ...this.args];
    this.#spawn(all);
    await until(async () => {
      // If it exited, another process has the port and may answer on it.
      if (this.process.exitCode !== null) this.#spawn(all);
      const said = await this.cli("INFO", "server").catch(() => "");
      return Number(/process_id:(\d+)/.exec(said)?.[1]) === this.process.pid;
    }, `the started redis-server on port ${this.port}`);
    return this;
  }

  #spawn(args) {
    this.process = spawn("redis-server", args, { stdio: "ignore" });
    this.exited = new Promise((resolve) => this.process.once("close", resolve));
  }

  /** Runs redis-cli and resolves with its output. */
  async cli(...args) {
    const { stdout } = await run("redis-cli", ["-p", String(this.port), ...args], { maxBuffer: 1 << 26 });
    return stdout.trimEnd();
  }

  signal(name) {
    this.process.kill(name);
  }

  /** Stops it; `SIGKILL` as a crash would. */
  async stop(signal = "SIGTERM") {
    this.signal("SIGCONT");
    this.signal(signal);
    await within(this.exited, `redis-server ending by ${signal}`);
  }

  async close() {
    if (this.process && this.process.exitCode === null && this.process.signalCode === null) await this.stop("SIGKILL");
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A started Redis; with `start: false` the test starts it. */
export async function startRedis({ start = true, ...options } = {}) {
  const redis = new Redis(await freePort(), options);
  return start ? redis.start() : redis;
}
