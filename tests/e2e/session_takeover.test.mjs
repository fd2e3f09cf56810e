// What a review of sessions over nodes found: each test shows one defect from outside.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { Polling, engineSocket, enginePath } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const SESSIONS = "roomcast:{roomcast:events}:sessions:";
const own = (name, data) => ({ room: "user:7", event: name, data });
const nodesOn = (s, store, count, more = {}) =>
  Promise.all(Array.from({ length: count }, () => s.node({ redis: { url: store.url }, ...more })));

/** A Socket.IO client by hand on a WebSocket, which names what it resumes. */
async function socket(s, node, resume = {}) {
  const raw = s.keep(await engineSocket(node));
  await raw.text((text) => text.startsWith("0"));
  raw.sendText(`40${JSON.stringify({ token, ...resume })}`);
  raw.reply = JSON.parse((await raw.text((text) => text.startsWith("40"))).slice(2));
  raw.ack = 0;
  raw.ask = async (...event) => {
    const id = (raw.ack += 1);
    raw.sendText(`42${id}${JSON.stringify(event)}`);
    await raw.text((text) => text.startsWith(`43${id}`));
  };
  return raw;
}

/** The events of these packets, without their offsets. */
const events = (packets) => packets.filter((text) => text.startsWith("42[")).map((text) => JSON.parse(text.slice(2)));
const named = (packets, name) => events(packets).filter(([event]) => event === name).map((event) => event[1]);
const offsetOf = (packets, name) => events(packets).find(([event]) => event === name).at(-1);

async function records(store) {
  const keys = (await store.cli("--scan", "--pattern", `${SESSIONS}*`)).split("\n").filter(Boolean);
  return (await Promise.all(keys.map((key) => store.cli("HVALS", key)))).join("\n");
}

/** A polling session on `a` whose WebSocket probes on `b`; the next thing to send is the `5`. */
async function probing(s, a, b) {
  const polling = await new Polling(a).open();
  const reply = JSON.parse((await polling.join({ token })).slice(2));
  const raw = s.keep(await engineSocket(b, { sid: polling.sid }));
  raw.sendText("2probe");
  await raw.text((text) => text === "3probe");
  return { polling, reply, raw };
}

suite("review of sessions over nodes", () => {
  scenario("a node that was away does not take up its old copy of a session that lived elsewhere meanwhile", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const first = await socket(s, a);
    await first.ask("join", "left");
    await published(a, own("first", 1));
    const offset = offsetOf([await first.text((text) => text.includes('"first"'))], "first");
    const resume = { pid: first.reply.pid, offset };
    await until(async () => (await records(store)).includes("room:left"), "the record");
    // Longer than three beats: others count it as gone and take the record without asking.
    a.signal("SIGSTOP");
    await until(async () => {
      const scores = (await store.cli("ZRANGE", "roomcast:{roomcast:events}:nodes", "0", "-1", "WITHSCORES")).split("\n");
      const beats = scores.filter((_, n) => n % 2).map(Number);
      return Math.max(...beats) - Math.min(...beats) > 3_700;
    }, "the other counts as gone");
    first.close();
    const second = await socket(s, b, resume);
    assert.equal(second.reply.sid, first.reply.sid, "recovered on the other node");
    await second.ask("join", "new");
    await second.ask("leave", "left");
    await published(b, own("second", 2));
    resume.offset = offsetOf([await second.text((text) => text.includes('"second"'))], "second");
    a.signal("SIGCONT");
    await until(() => a.answers("/health"), "the first is back");
    await until(async () => (await a.connections("socketio")) === 0, "it has seen that its client went");
    second.close();
    await until(async () => (await b.connections("socketio")) === 0, "gone");
    const third = await socket(s, a, resume);
    await published(a, { room: "room:new", event: "new", data: 1 });
    await published(a, { room: "room:left", event: "left", data: 1 });
    await published(a, own("end", 3));
    await third.text((text) => text.includes('"end"'));
    if (third.reply.sid !== first.reply.sid) return; // It was told.
    assert.deepEqual([named(third.texts, "new"), named(third.texts, "left")], [[1], []], "the rooms it had last");
  });

  scenario("orders that come while a session moves with its WebSocket are obeyed", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const lost = [];
    for (let turn = 0; turn < 6; turn += 1) {
      const { raw } = await probing(s, a, b);
      const count = 60;
      const orders = [];
      for (let n = 0; n < count; n += 1) {
        if (n === 20) raw.sendText("5");
        orders.push(command([a, b][n % 2], "/join", { user: "7", rooms: [`t${turn}:${n}`] }));
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      for (const answer of await Promise.all(orders)) assert.equal(answer.status, 200, answer.text);
      for (let n = 0; n < count; n += 1) await published(b, { room: `t${turn}:${n}`, event: "n", data: n });
      await published(b, own("end", 0));
      await raw.text((text) => text.includes('"end"'));
      const got = new Set(named(raw.texts, "n"));
      for (let n = 0; n < count; n += 1) if (!got.has(n)) lost.push(`${turn}/${n}`);
      raw.close();
      await until(async () => (await b.connections("socketio")) === 0, "gone");
      await command(a, "/disconnect", { user: "7" });
    }
    assert.deepEqual(lost, [], "rooms that an order answered 200 and the session is not in");
  });

  scenario("a session that moved with its WebSocket is still replayed by the rooms it was in", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    for (const moves of [false, true]) {
      const polling = await new Polling(a).open();
      const reply = JSON.parse((await polling.join({ token })).slice(2));
      await command(a, "/join", { user: "7", rooms: ["left"] });
      await published(a, own("first", 1));
      const packets = (await polling.get()).text.split("\x1e");
      const offset = offsetOf(packets, "first");
      await published(a, { room: "left", event: "mine", data: 1 });
      await published(a, { room: "joined", event: "foreign", data: 1 });
      await command(a, "/leave", { user: "7", rooms: ["left"] });
      await command(a, "/join", { user: "7", rooms: ["joined"] });
      if (moves) {
        const raw = s.keep(await engineSocket(b, { sid: polling.sid }));
        raw.sendText("2probe");
        await raw.text((text) => text === "3probe");
        raw.sendText("5");
        await until(async () => (await a.metric('roomcast_closes_total{reason="moved"}')) === 1, "it moved");
        raw.close();
      } else {
        await polling.post("1");
      }
      await until(async () => (await Promise.all([a, b].map((n) => n.connections("socketio")))).every((n) => n === 0), "gone");
      // The client saw none of what came on the WebSocket.
      const again = await socket(s, b, { pid: reply.pid, offset });
      await published(b, own("end", 0));
      await again.text((text) => text.includes('"end"'));
      again.sendText("41");
      again.close();
      if (again.reply.sid !== reply.sid) { assert.equal(moves, false, "not recovered"); continue; }
      assert.deepEqual([named(again.texts, "mine"), named(again.texts, "foreign")], [[1], []], `moved: ${moves}`);
    }
  });

  scenario("a resume brings back all rooms, also those that the backend added past the client's limit", async (s) => {
    const node = await s.node({ limits: { rooms_per_session: 3 } });
    const first = await socket(s, node);
    for (const rooms of [["b:1", "b:2", "b:3"], ["b:4", "b:5"]]) {
      assert.deepEqual((await command(node, "/join", { user: "7", rooms })).json(), { sessions: 1 });
    }
    await published(node, own("first", 1));
    const offset = offsetOf([await first.text((text) => text.includes('"first"'))], "first");
    first.close();
    await until(async () => (await node.connections("socketio")) === 0, "gone");
    const again = await socket(s, node, { pid: first.reply.pid, offset });
    assert.equal(again.reply.sid, first.reply.sid, "recovered");
    for (let n = 1; n <= 5; n += 1) await published(node, { room: `b:${n}`, event: "n", data: n });
    await published(node, own("end", 0));
    await again.text((text) => text.includes('"end"'));
    assert.deepEqual(named(again.texts, "n"), [1, 2, 3, 4, 5]);
  });

  scenario("a node that dies while a WebSocket probes on it does not leave the client polling in a loop", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const { polling } = await probing(s, a, b);
    await polling.get();
    await b.stop("SIGKILL");
    // Once the upgrade's time is over, a GET without packets waits again.
    let pending;
    await until(async () => {
      pending ??= polling.get().then((answer) => ((pending = undefined), answer), () => {});
      return (await Promise.race([pending, new Promise((resolve) => setTimeout(resolve, 300, "waits"))])) === "waits";
    }, "a GET that waits", 15_000);
  });

  scenario("a body for a session that nobody has is not sent through Redis", async (s) => {
    const store = await s.redis();
    const [node] = await nodesOn(s, store, 1);
    const input = async () => Number(/total_net_input_bytes:(\d+)/.exec(await store.cli("INFO", "stats"))[1]);
    const before = await input();
    const body = `4${"x".repeat(900_000)}`;
    for (let n = 0; n < 20; n += 1) {
      const sid = Buffer.from(Array.from({ length: 15 }, () => Math.floor(Math.random() * 256))).toString("base64url");
      const answer = await request(node.url + enginePath({ sid }), { method: "POST", body });
      assert.equal(answer.status, 400);
    }
    const sent = (await input()) - before;
    assert.ok(sent < 2_000_000, `${sent} bytes of strangers' bodies went to Redis`);
  });

  scenario("a record is written again once each fifth of the window, however often its session changed", async (s) => {
    const store = await s.redis();
    const [node] = await nodesOn(s, store, 1, { recovery: { window: "10s" } });
    const client = await socket(s, node);
    const written = async () => {
      const stats = await store.cli("INFO", "commandstats");
      const calls = (name) => Number(new RegExp(`cmdstat_${name}:calls=(\\d+)`).exec(stats)?.[1] ?? 0);
      // Each step of presence, one a second, is a script with one HSET of its own.
      return calls("hset") - calls("evalsha");
    };
    for (let n = 0; n < 15; n += 1) {
      const before = await written();
      await client.ask(n % 2 ? "leave" : "join", "a");
      await until(async () => (await written()) > before, "the record");
    }
    const before = await written();
    const end = Date.now() + 4_500;
    await until(async () => (await written()) > before && Date.now() > end, "two fifths of the window");
    const more = (await written()) - before;
    assert.ok(more <= 4, `${more} writes in five seconds of an idle session`);
  });

  scenario("kill -9 just after a join was acknowledged: the session has the room, or the client is told", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const first = await socket(s, a);
    await published(a, own("first", 1));
    const offset = offsetOf([await first.text((text) => text.includes('"first"'))], "first");
    await until(async () => (await records(store)).includes("user:7"), "the record");
    await first.ask("join", "late");
    await a.stop("SIGKILL");
    await published(b, { room: "room:late", event: "late", data: 1 });
    const again = await socket(s, b, { pid: first.reply.pid, offset });
    await published(b, own("end", 2));
    await again.text((text) => text.includes('"end"'));
    if (again.reply.sid !== first.reply.sid) return; // It was told.
    assert.deepEqual(named(again.texts, "late"), [1], "recovered, and without what the acknowledged room had");
  });

  scenario("a few entries in the stream do not stop every node", async (s) => {
    const store = await s.redis();
    const [node] = await nodesOn(s, store, 1);
    await store.cli("ACL", "SETUSER", "backend", "on", ">secret", "resetkeys", "%W~roomcast:events", "resetchannels", "-@all", "+ping", "+xadd");
    const [one] = await Promise.all(Array.from({ length: 20 }, () => socket(s, node)));
    const rooms = (from) => Array.from({ length: 6_000 }, (_, n) => `r${from + n}`);
    let slowest = 0;
    let stop = false;
    const asking = (async () => {
      while (!stop) {
        const begun = Date.now();
        await node.get("/health/live").catch(() => {});
        slowest = Math.max(slowest, Date.now() - begun);
      }
    })();
    // What `redis-cli` takes as one argument is bounded, so ten such entries in place of one.
    for (let n = 0; n < 10; n += 1) {
      const order = { id: "A".repeat(20), from: "00000000", for: { user: "7" }, namespace: "/", do: { join: rooms(n * 6_000) } };
      await store.cli("--user", "backend", "--pass", "secret", "--no-auth-warning", "XADD", "roomcast:events", "*", "order", JSON.stringify(order));
    }
    // Behind them in the log: when this has come they are carried out, or refused.
    await published(node, own("end", 1));
    await one.text((text) => text.includes('"end"'));
    stop = true;
    await asking;
    const held = await node.metric("roomcast_rooms");
    assert.ok(held < 10_000, `${held} rooms made by a backend that may only add; slowest answer ${slowest} ms`);
  });

  scenario("Redis out of memory: a node that is up is asked for its session, not robbed of an old record", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const first = await socket(s, a);
    await published(a, own("first", 1));
    const offset = offsetOf([await first.text((text) => text.includes('"first"'))], "first");
    await until(async () => (await records(store)).includes("user:7"), "the record");
    await store.cli("CONFIG", "SET", "maxmemory-policy", "noeviction");
    await store.cli("CONFIG", "SET", "maxmemory", "1000000");
    await first.ask("join", "late");
    const score = async () => (await store.cli("ZRANGE", "roomcast:{roomcast:events}:nodes", "0", "-1", "WITHSCORES")).split("\n").filter((_, n) => n % 2).map(Number);
    const oldest = Math.max(...(await score()));
    await until(async () => Date.now() - oldest > 4_500, "three beats were refused");
    first.close();
    const again = await socket(s, b, { pid: first.reply.pid, offset });
    await store.cli("CONFIG", "SET", "maxmemory", "0");
    await published(b, { room: "room:late", event: "late", data: 1 });
    await published(b, own("end", 2));
    await again.text((text) => text.includes('"end"'));
    if (again.reply.sid !== first.reply.sid) return; // It was told.
    assert.deepEqual(named(again.texts, "late"), [1], "recovered, and without a room that its node knew of");
  });
});
