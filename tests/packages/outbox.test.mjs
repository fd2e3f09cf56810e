// The outbox: nothing that was saved is lost, doubled or out of order while roomcast and the backend are killed.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import Redis from "ioredis";
import { MemoryOutboxStore, Outbox, Roomcast } from "../../packages/server/src/index.js";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { startFront } from "./front.mjs";
import { Journal } from "./journal.mjs";

const QUIET = { onError: () => {}, maxPause: 50 };
const numbers = (count, from = 0) => Array.from({ length: count }, (_, at) => from + at);
const event = (data) => ({ room: "room:a", event: "n", data });

/** An outbox in memory for the node at `url`. */
function started(scene, url, { store = new MemoryOutboxStore(), ...options } = {}) {
  const outbox = new Outbox(new Roomcast({ url, key: KEY, timeout: 3000 }), store, { ...QUIET, ...options });
  scene.keep(outbox);
  return { outbox, store, save: (...data) => store.transaction((tx) => outbox.add(tx, data.map(event))) };
}

/** A member of room:a, and what it has received when `count` events are there. */
async function listener(scene, node) {
  const client = await (await scene.io(node, { token: tokenFor("7") }).connected()).join("room:a");
  const got = () => client.argsOf("n").flat();
  return { got, gets: async (count) => (await until(() => got().length >= count, () => `${count} events; got ${got().length}`), got()) };
}

/** The data of the events in the log of a Redis. */
async function logged(redis) {
  const entries = await redis.xrange("roomcast:events", "-", "+");
  const fields = entries.map(([, list]) => Object.fromEntries(list.flatMap((name, at) => (at % 2 ? [] : [[name, list[at + 1]]]))));
  return fields.filter((entry) => entry.event === "n").map(({ data, args }) => (data === undefined ? JSON.parse(args)[0] : JSON.parse(data)));
}

suite("outbox", () => {
  scenario("roomcast and the backend are killed again and again: each saved message is published once, in order", async (scene) => {
    const server = await scene.redis();
    const redis = new Redis(server.port);
    scene.serve({ close: () => redis.disconnect() });
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-outbox-"));
    scene.serve({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
    const [port, file] = [await freePort(), path.join(directory, "journal")];
    const config = { redis: { url: server.url } };
    let node = await scene.node(config, { port });
    const { got } = await listener(scene, node);

    let publisher;
    const publish = () => {
      publisher = new Daemon([path.join(import.meta.dirname, "publisher.mjs"), node.url, KEY, file], {}, process.execPath);
      scene.keep({ close: () => publisher.signal("SIGKILL") });
    };
    const saved = () => new Journal(file).messages.length;
    const more = (what, by, of) => until(async () => (await what()) >= of + by, () => `${by} more than ${of}; ${publisher.output}`, 30_000);
    publish();
    for (let round = 0; round < 4; round++) {
      await more(async () => (await logged(redis)).length, 100, (await logged(redis)).length);
      await node.stop("SIGKILL");
      // Saving goes on without roomcast.
      await more(saved, 50, saved());
      if (round % 2) {
        await publisher.stop("SIGKILL");
        publish();
      }
      node = await scene.node(config, { port });
      await more(async () => (await logged(redis)).length, 60, (await logged(redis)).length);
      await publisher.stop("SIGKILL");
      publish();
    }
    // It saves until this file says that there is enough: every kill came while it was saving.
    fs.writeFileSync(`${file}.enough`, "");
    await until(() => publisher.stdout.includes("done"), () => publisher.output, 30_000);
    const count = saved();
    assert.ok(count > 500, `${count} messages`);
    assert.deepEqual(new Journal(file).messages, numbers(count));
    assert.deepEqual(await logged(redis), numbers(count));
    // A client may be notified of a gap (`recovered: false`), but no event comes twice or late.
    assert.deepEqual(got(), [...new Set(got())].sort((a, b) => a - b));
  }, { timeout: 240_000 });

  scenario("what was committed before a crash is published by the next run, and what was rolled back is not", async (scene) => {
    const node = await scene.node();
    const { gets } = await listener(scene, node);
    const store = new MemoryOutboxStore();
    const before = started(scene, node.url, { store });
    await before.save(0, 1);
    await assert.rejects(store.transaction((tx) => (before.outbox.add(tx, event(99)), Promise.reject(new Error("rolled back")))), /rolled back/);
    const { outbox } = started(scene, node.url, { store });
    outbox.start();
    assert.deepEqual(await gets(2), [0, 1]);
    await until(() => store.entries.length === 0, "an empty outbox");
  });

  scenario("a lost answer does not double an event, and one failure is reported once", async (scene) => {
    const node = await scene.node();
    const front = scene.keep(await startFront(node.url));
    const { gets } = await listener(scene, node);
    const said = [];
    const { outbox, store, save } = started(scene, front.url, { onError: ({ code }) => said.push(code), onRecovery: () => said.push("recovered") });
    await save(0, 1, 2);
    front.faults = ["lose the answer", { status: 503 }, "hang", { status: 401 }];
    await assert.rejects(outbox.drain(), { code: "unreachable" });
    await save(3);
    await until(() => store.entries.length === 0, "an empty outbox");
    assert.deepEqual(await gets(4), [0, 1, 2, 3]);
    await until(() => said.length >= 2, () => `a failure and its end: ${said}`);
    assert.deepEqual(said, ["unreachable", "recovered"]);
    assert.equal(front.requests.length, 5);
  });

  scenario("an event that roomcast refuses is set aside, and an invalid one is not saved", async (scene) => {
    const node = await scene.node({ publish: { keys: [KEY], max_event: 1000 } });
    const { gets } = await listener(scene, node);
    const { outbox, store, save } = started(scene, node.url);
    await save(0, "x".repeat(2000), 1);
    await outbox.drain();
    assert.deepEqual(await gets(2), [0, 1]);
    assert.deepEqual(store.refused.map(({ error }) => error.code), ["event_too_big"]);
    for (const wrong of [{ room: "room:a", event: "connect" }, { ...event(1), volatile: true }]) {
      await assert.rejects(store.transaction((tx) => outbox.add(tx, [event(9), wrong])), { code: "bad_event" });
    }
    assert.deepEqual(store.entries, []);
  });

  scenario("several processes on one table publish in order and once, one at a time if the store has a lock", async (scene) => {
    const node = await scene.node();
    const { gets } = await listener(scene, node);
    const store = new MemoryOutboxStore();
    const outboxes = numbers(3).map(() => started(scene, node.url, { store, batch: 3 }));
    const save = async (all) => {
      for (const [at, number] of all.entries()) {
        await outboxes[at % 3].save(number);
        outboxes[at % 3].outbox.wake();
      }
    };
    await save(numbers(100));
    assert.deepEqual(await gets(100), numbers(100));

    let inside = 0;
    store.exclusively = async (work) => {
      if (inside > 0) return false;
      inside += 1;
      await work().finally(() => (inside -= 1));
      return true;
    };
    await save(numbers(100, 100));
    assert.deepEqual(await gets(200), numbers(200));
    await until(() => store.entries.length === 0, "an empty outbox");
  });
});
