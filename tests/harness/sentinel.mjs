// A master, two replicas, and three Sentinels that monitor them.
import fs from "node:fs";
import path from "node:path";
import { until } from "./deadline.mjs";
import { freePort } from "./port.mjs";
import { Redis as Server } from "./redis.mjs";
import { Redis } from "ioredis";

const NAME = "mymaster";
/** Milliseconds; the master on a busy machine must not count as down. */
const DOWN_AFTER = 3000;
/** How replicas log in to their master, so that a master can lock them out. */
const REPLICA = ["--masteruser", "replica", "--masterauth", "r", "--user", "replica", "on", ">r", "+psync", "+replconf", "+ping"];
const FAILOVER_WITHIN = 40_000;

class Group {
  members = [];
  sentinels = [];

  get url() {
    return `redis+sentinel://${this.sentinels.map(({ port }) => `127.0.0.1:${port}`).join(",")}/${NAME}`;
  }

  async start() {
    for (let index = 0; index < 3; index += 1) {
      const follow = index === 0 ? [] : ["--replicaof", "127.0.0.1", String(this.members[0].port)];
      const member = new Server(await freePort(), { args: [...REPLICA, ...follow, "--repl-diskless-sync-delay", "0"] });
      this.members.push(member);
      await member.start();
    }
    this.master = this.members[0];
    for (const replica of this.members.slice(1)) {
      await until(async () => /master_link_status:up/.test(await replica.cli("INFO", "replication").catch(() => "")), "a replica in sync");
    }
    for (let index = 0; index < 3; index += 1) this.sentinels.push(await this.#startSentinel());
    await until(async () => (await Promise.all(this.sentinels.map((one) => this.#knows(one)))).every(Boolean), "Sentinels that know each other", FAILOVER_WITHIN);
    return this;
  }

  async #startSentinel() {
    const sentinel = new Server(await freePort());
    const file = path.join(sentinel.directory, "sentinel.conf");
    fs.writeFileSync(file, [
      `port ${sentinel.port}`, "bind 127.0.0.1", `dir ${sentinel.directory}`,
      `sentinel monitor ${NAME} 127.0.0.1 ${this.master.port} 2`,
      `sentinel down-after-milliseconds ${NAME} ${DOWN_AFTER}`, `sentinel failover-timeout ${NAME} 5000`, `sentinel parallel-syncs ${NAME} 2`, "",
    ].join("\n"));
    return sentinel.start([file, "--sentinel"]);
  }

  async #knows(sentinel) {
    const text = await sentinel.cli("INFO", "sentinel").catch(() => "");
    return /status=ok,address=[^,]+,slaves=2,sentinels=3/.test(text);
  }

  /** A publisher's connection to the current master. */
  client(options) {
    const sentinels = this.sentinels.map(({ port }) => ({ host: "127.0.0.1", port }));
    return new Redis({ sentinels, name: NAME, sentinelRetryStrategy: () => 100, ...options });
  }

  /** Locks the replicas out of the master: they miss everything that it accepts from now on. */
  async lag() {
    await this.master.cli("ACL", "SETUSER", "replica", "off");
    await this.master.cli("CLIENT", "KILL", "TYPE", "replica");
    await until(async () => /connected_slaves:0/.test(await this.master.cli("INFO", "replication")), "replicas cut off");
  }

  /** Kills the master and waits until the Sentinels have promoted a replica; resolves with the killed one. */
  async failover() {
    const dead = this.master;
    await dead.stop("SIGKILL");
    this.master = await until(async () => {
      for (const member of this.members.filter((one) => one !== dead)) {
        // Sentinel closes all connections of a server whose role it changes.
        const said = await member.cli("INFO", "replication").catch(() => "");
        if (/^role:master/m.test(said)) return member;
      }
      return undefined;
    }, "a replica promoted", FAILOVER_WITHIN);
    return dead;
  }

  /** How many times the Sentinels have failed over. */
  async failovers() {
    const facts = (await this.sentinels[0].cli("SENTINEL", "MASTER", NAME)).split("\n");
    return Number(facts[facts.indexOf("config-epoch") + 1]);
  }

  async close() {
    await Promise.all([...this.sentinels, ...this.members].map((server) => server.close()));
  }
}

/** Starts all six and waits until they know each other. */
export async function startSentinels() {
  const group = new Group();
  try {
    return await group.start();
  } catch (error) {
    await group.close();
    throw error;
  }
}
