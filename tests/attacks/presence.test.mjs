// Somebody writes into the keys of presence: other types, lines that cannot be read, facts of nodes that never were.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const P = "roomcast:{roomcast:events}:presence:";
const rooms = [{
  match: "room:<id>",
  join: "allow",
  joined: { event: "joined", args: [{ user: "{user}" }] },
  left: { event: "left", args: [{ user: "{user}" }] },
}];
const ask = (node, path) => node.get(path, { authorization: `Bearer ${KEY}` });
const ws = (s, node, user) => s.ws(node, { token: tokenFor(user) });

/** The name of the only node in the keys. */
const nodeName = async (store) => (await until(async () => (await store.cli("HKEYS", `${P}nodes`)).split("\n")[0], "the node's name"));
const wrongType = async (store, key) => {
  await store.cli("DEL", P + key);
  await store.cli("LPUSH", P + key, "x");
};

// What is written, before user 8 comes into room:a and leaves again while user 7 is there.
const poisons = {
  "the list of nodes has another type": (store) => wrongType(store, "nodes"),
  "lines of nodes cannot be read": (store) => store.cli("HSET", `${P}nodes`, "a", "x", "b", "1 2", "c", "1 x y", "d", `1 ${"9".repeat(400)} ${"9".repeat(400)}`),
  "thousands of nodes": async (store) => {
    const lines = Array.from({ length: 3000 }, (_, n) => [`n${n}`, `1 ${Date.now()} ${Date.now()}`]).flat();
    await store.cli("HSET", `${P}nodes`, ...lines);
  },
  "the epoch has another type": (store) => wrongType(store, "epoch"),
  "the node's facts have another type": async (store) => wrongType(store, `node:${await nodeName(store)}`),
  "the answer to the node has another type": async (store) => wrongType(store, `reply:${await nodeName(store)}`),
  "a dead node has facts that are none": async (store) => {
    await store.cli("HSET", `${P}node:ghost`, "garbage", "", "r\n/", "", "", "", "u\nnobody", "");
    await store.cli("HSET", `${P}nodes`, "ghost", "5 1000 1000");
    await until(async () => !(await store.cli("HKEYS", `${P}nodes`)).includes("ghost"), "a dead node that is removed");
  },
  "a dead node's facts have another type": async (store) => {
    await wrongType(store, "node:ghost");
    await store.cli("HSET", `${P}nodes`, "ghost", "5 1000 1000");
    await until(async () => !(await store.cli("HKEYS", `${P}nodes`)).includes("ghost"), "a dead node that is removed");
  },
  "users have other types": async (store) => {
    await wrongType(store, "user:8");
    await wrongType(store, "user:7");
    await wrongType(store, "seen:8");
  },
  "counts are no numbers": async (store) => {
    await store.cli("HSET", `${P}user:7`, "x", "many", "y", "1e308", "z", "-");
    await store.cli("HSET", `${P}room:/\nroom:a`, "x\n=7", "many", "y\n=9", "");
  },
  "a room has another type": (store) => wrongType(store, "room:/\nroom:a"),
  "a dead node's announcements are no entries": async (store) => {
    await store.cli("HSET", `${P}room:/\nroom:a`, "ghost\n=9", "1\n{", "ghost\n=10", "1\n[]", "ghost\n=11", "1\n[1]", "ghost\n=12", "1\n[[],{}]");
    await store.cli("HSET", `${P}node:ghost`, ...[9, 10, 11, 12].flatMap((user) => [`r\n/\nroom:a\n=${user}`, ""]));
    await store.cli("HSET", `${P}nodes`, "ghost", "5 1000 1000");
    await until(async () => !(await store.cli("HKEYS", `${P}nodes`)).includes("ghost"), "a dead node that is removed");
  },
};

suite("presence with poisoned keys", () => {
  for (const [name, poison] of Object.entries(poisons)) {
    scenario(`${name}: other users come, are announced, leave and are counted`, async (s) => {
      const store = await s.redis();
      const node = await s.node({ redis: { url: store.url }, rooms, presence: { grace: "0s", lease: "4s" } });
      const seven = await ws(s, node, "7").welcomed();
      await seven.join("room:a");
      await poison(store);
      const eight = await ws(s, node, "8").welcomed();
      await eight.join("room:a");
      await until(() => seven.eventsOf("joined").some(({ data }) => data.user === "8"), "8 announced");
      assert.equal((await ask(node, "/users/8")).json().online, true);
      const inside = (await ask(node, "/rooms/room:a")).json();
      assert.ok(inside.users.includes("8"), JSON.stringify(inside));
      assert.equal((await ask(node, "/users/7")).status, 200);
      await eight.ask({ type: "leave", room: "room:a" });
      await until(() => seven.eventsOf("left").some(({ data }) => data.user === "8"), "8 announced as gone");
      eight.close();
      await until(async () => (await ask(node, "/users/8")).json().online === false, "8 offline");
      assert.equal((await node.get("/health")).status, 200);
    });
  }

  scenario("while the stream is exhausted, joins are acknowledged and announced", async (s) => {
    const store = await s.redis();
    const node = await s.node({ redis: { url: store.url }, rooms });
    const seven = await ws(s, node, "7").welcomed();
    await seven.join("room:a");
    await store.cli("XADD", "roomcast:events", "MAXLEN", "0", "18446744073709551615-18446744073709551615", "probe", "0");
    const eight = await ws(s, node, "8").welcomed();
    await eight.join("room:a");
    await until(() => seven.eventsOf("joined").some(({ data }) => data.user === "8"), "8 announced");
  });
});
