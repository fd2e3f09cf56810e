// Presence while nodes, Redis or its clock fail.
import assert from "node:assert/strict";
import net from "node:net";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { assertError, command } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const token = (user, claims = {}) => tokenFor(user, { name: `n${user}`, ...claims });
const ask = (node, path) => node.get(path, { authorization: `Bearer ${KEY}` });
const user = async (node, id) => (await ask(node, `/users/${encodeURIComponent(id)}`)).json();
const notify = ["online", "offline", "occupied", "vacated"];
async function stage(s, presence, redisOptions) {
  const backend = s.keep(await startBackend());
  const store = await s.redis(redisOptions);
  const settings = (to = store.url) => ({ presence, redis: { url: to }, ...backend.config({ notify, timeout: "1m" }) });
  return { backend, store, settings };
}
/** Each once: a node that is suspended before it reads the answer sends the notice again, under its id. */
const notices = (backend) => backend.calls.filter(({ id }, at) => backend.calls.findIndex((call) => call.id === id) === at).map((call) => `${call.type} ${call.user ?? call.room}`);

suite("presence under faults", () => {
  scenario("after a graceful stop, last_seen is the time of the stop", async (s) => {
    const { backend, settings } = await stage(s, { grace: "300ms", lease: "5s" });
    const [a] = await Promise.all([s.node(settings()), s.node(settings())]);
    const before = Date.now();
    await s.io(a, { token: token("3"), ...WEBSOCKET, reconnection: false }).connected();
    await backend.call("online");
    await a.stop();
    const offline = await backend.call("offline");
    assert.ok(new Date(offline.last_seen) >= before - 50, `last_seen ${new Date(offline.last_seen) - before} ms after the user came`);
  });

  scenario("after an outage of Redis, last_seen is the time of the disconnection", async (s) => {
    const { backend, store, settings } = await stage(s, { grace: "0s", lease: "30s" }, { durable: true });
    const a = await s.node(settings());
    const one = await s.io(a, { token: token("3"), ...WEBSOCKET, reconnection: false }).connected();
    await backend.call("online");
    await store.stop("SIGKILL");
    const closed = Date.now();
    one.close();
    assertError(await ask(a, "/users/3"), 503, "unavailable");
    await until(() => Date.now() > closed + 6_000, "a long outage");
    assertError(await ask(a, "/users/3"), 503, "unavailable");
    await store.start();
    const offline = await backend.call("offline");
    const off = new Date(offline.last_seen) - closed;
    // The node may notice the disconnection late on a busy machine, but not after the outage.
    assert.ok(off > -1_000 && off < 4_000, `last_seen is ${off} ms off`);
  });

  for (const [name, break_, heal, says] of [
    ["is full", (store) => store.cli("CONFIG", "SET", "maxmemory", "1"), (store) => store.cli("CONFIG", "SET", "maxmemory", "0"), /OOM/],
    ["lacks rights", (store) => store.cli("ACL", "SETUSER", "default", "-hset"), (store) => store.cli("ACL", "SETUSER", "default", "+hset"), /can.t run|permission/],
  ]) {
    scenario(`while Redis ${name}, presence is unavailable and not wrong, /health is 503, and both recover`, async (s) => {
      const store = await s.redis();
      const a = await s.node({ redis: { url: store.url }, rooms: [{ match: "room:<id>", join: "allow", presence: true }] });
      await break_(store);
      await s.io(a, { token: token("7"), ...WEBSOCKET }).connected();
      for (const path of ["/users/7", "/rooms/room:a"]) {
        const refused = await ask(a, path);
        assertError(refused, 503, "unavailable");
        assert.match(refused.json().error.message, /could not be written/);
        assert.match(refused.json().error.message, says);
      }
      assertError(await command(a, "/users", { users: ["7"] }), 503, "unavailable");
      await until(() => a.answers("/health", 503), "/health answering 503", 30_000);
      assert.match((await a.get("/health")).json().services.redis.error, says);
      await heal(store);
      await until(async () => (await user(a, "7")).online, "the user online");
      assert.equal((await ask(a, "/rooms/room:a")).status, 200);
      await until(() => a.answers("/health"), "/health answering 200", 30_000);
    });
  }

  scenario("a node that was suspended announces its users once, also when the answer of Redis is lost", async (s) => {
    const { backend, store, settings } = await stage(s, { grace: "200ms", lease: "6s" });
    let cuts = 0, armed = false;
    const sockets = new Set();
    const proxy = net.createServer((client) => {
      const up = net.connect(store.port, "127.0.0.1");
      sockets.add(client).add(up);
      let dead = false;
      client.on("data", (data) => {
        up.write(data);
        if (armed && data.includes("'HKEYS'")) {
          armed = false;
          cuts += 1;
          dead = true;
          setTimeout(() => { client.destroy(); up.destroy(); }, 100);
        }
      });
      up.on("data", (data) => dead || client.write(data));
      for (const [x, y] of [[client, up], [up, client]]) x.on("error", () => y.destroy()).on("close", () => y.destroy());
    });
    await new Promise((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    s.serve({ close: () => { sockets.forEach((x) => x.destroy()); proxy.close(); } });
    const [a, b] = await Promise.all([s.node(settings(`redis://127.0.0.1:${proxy.address().port}/0`)), s.node(settings())]);
    await s.io(a, { token: token("2"), ...WEBSOCKET }).connected();
    await backend.call("online");
    a.signal("SIGSTOP");
    await backend.call("offline").finally(() => { armed = true; a.signal("SIGCONT"); });
    await until(() => cuts === 1, "the cut");
    await until(async () => (await user(b, "2").catch(() => ({}))).online, "online by GET");
    // A node sends its notices one at a time and in order, so this one comes after all others.
    await s.io(a, { token: token("9"), ...WEBSOCKET }).connected();
    await until(() => notices(backend).includes("online 9"), () => `online 9; ${notices(backend)}`);
    assert.deepEqual(notices(backend), ["online 2", "offline 2", "online 2", "online 9"]);
  });

  scenario("users of a killed node go offline although the clock of Redis went back an hour", async (s) => {
    const { backend, store, settings } = await stage(s, { grace: "200ms", lease: "6s" });
    const [a, b] = await Promise.all([s.node(settings()), s.node(settings())]);
    await s.io(a, { token: token("2"), ...WEBSOCKET, reconnection: false }).connected();
    await backend.call("online");
    await a.stop("SIGKILL");
    const key = (await store.cli("KEYS", "*presence:nodes"));
    // Redis then contains times in its future.
    const all = (await store.cli("HGETALL", key)).split("\n");
    for (let n = 0; n < all.length; n += 2) {
      const [number, at, since] = all[n + 1].split(" ");
      const script = "local l=redis.call('HGET',KEYS[1],ARGV[1]); local n=string.match(l,'^%S+'); redis.call('HSET',KEYS[1],ARGV[1],n..' '..ARGV[2]..' '..ARGV[3])";
      await store.cli("EVAL", script, "1", key, all[n], String(+at + 3600_000), String(+since + 3600_000));
    }
    await backend.call("offline");
  });

  scenario("a user who disconnected while the node hung past its lease is not announced online again", async (s) => {
    const { backend, settings } = await stage(s, { grace: "300ms", lease: "6s" });
    const [a, b] = await Promise.all([s.node(settings()), s.node(settings())]);
    const io = await s.io(a, { token: token("2"), ...WEBSOCKET }).connected();
    await backend.call("online");
    a.signal("SIGSTOP");
    io.close();
    await backend.call("offline").finally(() => a.signal("SIGCONT"));
    const after = await s.io(a, { token: token("3"), ...WEBSOCKET }).connected();
    await until(async () => (await user(b, "3")).online, "the node writes again");
    after.close();
    await until(() => backend.of("offline").some((call) => call.user === "3"), "3 offline");
    assert.deepEqual(notices(backend).filter((call) => call.endsWith(" 2")), ["online 2", "offline 2"]);
  });
});
