// A Redis Cluster of three masters and three replicas.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { until } from "./deadline.mjs";
import { freePort } from "./port.mjs";
import { Redis as Server } from "./redis.mjs";
import { Cluster } from "ioredis";

const run = promisify(execFile);
/** Milliseconds; a master on a busy machine must not count as failed. */
const NODE_TIMEOUT = 3000;
const SETTLED_WITHIN = 40_000;

class Group {
  members = [];

  get url() {
    return `redis+cluster://${this.members.map(({ port }) => `127.0.0.1:${port}`).join(",")}`;
  }

  async start() {
    for (let index = 0; index < 6; index += 1) {
      const args = ["--cluster-node-timeout", String(NODE_TIMEOUT), "--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"];
      this.members.push(new Server(await freePort(), { cluster: true, args }));
    }
    await Promise.all(this.members.map((member) => member.start()));
    const addresses = this.members.map(({ port }) => `127.0.0.1:${port}`);
    await run("redis-cli", ["--cluster", "create", ...addresses, "--cluster-replicas", "1", "--cluster-yes"]);
    await until(() => this.#isWhole(), "a complete cluster", SETTLED_WITHIN);
    return this;
  }

  async #isWhole() {
    for (const member of this.members) {
      const asked = (...what) => member.cli(...what).catch(() => "");
      if (!/cluster_state:ok/.test(await asked("CLUSTER", "INFO"))) return false;
      // Others may take a replica for a master until it has told all of them.
      if ((await asked("CLUSTER", "NODES")).split("\n").filter((line) => / (myself,)?slave /.test(line)).length !== 3) return false;
      const replication = await asked("INFO", "replication");
      if (!/master_link_status:up/.test(replication) && !/connected_slaves:1/.test(replication)) return false;
    }
    return true;
  }

  /** A publisher's connection. */
  client(options) {
    const nodes = this.members.map(({ port }) => ({ host: "127.0.0.1", port }));
    // A retry after a lost connection could add an event twice; after MOVED and ASK it was not added.
    return new Cluster(nodes, { redisOptions: options, retryDelayOnFailover: 0, retryDelayOnClusterDown: 0, slotsRefreshInterval: 500, clusterRetryStrategy: () => 100 });
  }

  /** The cluster as a running member sees it: `{ id, member, flags, master, link, slots }`. */
  async view() {
    const up = this.members.find(({ process }) => process.exitCode === null && process.signalCode === null);
    const lines = (await up.cli("CLUSTER", "NODES")).split("\n").filter(Boolean);
    return lines.map((line) => {
      const [id, address, flags, master, , , , link, ...slots] = line.split(" ");
      const port = Number(address.split("@")[0].split(":").at(-1));
      return { id, member: this.members.find((one) => one.port === port), flags, master, link, slots };
    });
  }

  slotOf = async (key) => Number(await this.members[0].cli("CLUSTER", "KEYSLOT", key));

  /** The master of a slot. */
  async ownerOf(slot) {
    const covers = (range) => {
      const [from, to = from] = range.split("-").map(Number);
      return slot >= from && slot <= to;
    };
    const view = await this.view();
    return view.find(({ flags, slots }) => flags.includes("master") && !flags.includes("fail") && slots.filter((range) => !range.startsWith("[")).some(covers));
  }

  /** Kills the master of a slot and waits until its replica has the slot; resolves with the killed one. */
  async failover(slot) {
    const { id, member } = await this.ownerOf(slot);
    await member.stop("SIGKILL");
    if (member === this.members[0]) this.members.push(this.members.shift());
    await until(async () => {
      const owner = await this.ownerOf(slot).catch(() => undefined);
      return owner && owner.id !== id && /^role:master/m.test(await owner.member.cli("INFO", "replication").catch(() => ""));
    }, "the replica promoted", SETTLED_WITHIN);
    return member;
  }

  /** Moves a slot and its keys to another master, as `redis-cli --cluster reshard` does. */
  async migrate(slot) {
    const from = await this.ownerOf(slot);
    const to = (await this.view()).find(({ flags, id }) => flags.includes("master") && !flags.includes("fail") && id !== from.id);
    for (const [member, ...state] of [[to.member, "IMPORTING", from.id], [from.member, "MIGRATING", to.id]]) {
      const said = await member.cli("CLUSTER", "SETSLOT", slot, ...state);
      if (said !== "OK") throw new Error(`SETSLOT ${state}: ${said}`);
    }
    let said;
    await until(async () => {
      const keys = (await from.member.cli("CLUSTER", "GETKEYSINSLOT", slot, "1000")).split("\n").filter(Boolean);
      if (keys.length > 0) said = await from.member.cli("MIGRATE", "127.0.0.1", to.member.port, "", "0", "5000", "KEYS", ...keys);
      return keys.length === 0;
    }, () => `all keys moved: ${said}`);
    for (const { member, flags } of [to, from, ...(await this.view()).filter(({ id }) => id !== to.id && id !== from.id)]) {
      if (flags.includes("master") && !flags.includes("fail")) await member.cli("CLUSTER", "SETSLOT", slot, "NODE", to.id);
    }
    await until(async () => (await this.ownerOf(slot).catch(() => undefined))?.id === to.id, "the slot moved");
  }

  async close() {
    await Promise.all(this.members.map((server) => server.close()));
  }
}

/** Starts all six and waits until every replica is in sync. */
export async function startCluster() {
  const group = new Group();
  try {
    return await group.start();
  } catch (error) {
    await group.close();
    throw error;
  }
}
