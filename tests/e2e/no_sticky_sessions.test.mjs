// Polling requests and upgrades that reach another node than the one that has the session.
import assert from "node:assert/strict";
import { RoundRobin } from "../harness/balancer.mjs";
import { until } from "../harness/deadline.mjs";
import { Polling, engineSocket, enginePath } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { argumentsOf, nodesOn, offsetOf, rawSession, recorded, toUser, untilEnd } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");

/** A balancer that gives each new connection to the next node. */
async function roundRobin(s, ...nodes) {
  const proxy = await s.proxy(nodes[0]);
  proxy.balancer = new RoundRobin(nodes);
  return proxy;
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

suite("no sticky sessions", () => {
  scenario("polling requests that reach another node are forwarded", async (s) => {
    const [a, b, c] = await nodesOn(s, await s.redis(), 3);
    const balancer = await roundRobin(s, a, b, c);
    const polling = await s.io(balancer, { token, transports: ["polling"] }).connected();
    await polling.join("room:a");
    for (let n = 1; n <= 20; n += 1) {
      await published([a, b, c][n % 3], { room: "room:a", event: "n", data: n });
      assert.deepEqual(await polling.ask("say", "a", n), [{ ok: true }]);
    }
    await until(() => polling.argsOf("n").length === 20, () => `20 events, got ${polling.argsOf("n").length}`);
    assert.deepEqual(polling.argsOf("n"), Array.from({ length: 20 }, (_, n) => [n + 1]));
    assert.deepEqual([polling.connects, polling.disconnects], [1, []]);
    polling.close();
    const gone = async () => (await Promise.all([a, b, c].map((node) => node.connections("socketio")))).every((n) => n === 0);
    await until(gone, "the session is gone everywhere");
  });

  scenario("the node of a polling session is killed while another node waits for it: the client is not kept waiting", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2, { socketio: { ping_interval: "5m", ping_timeout: "20s" } });
    const balancer = await s.proxy(a);
    const client = await s.io(balancer, { token, transports: ["polling"] }).connected();
    await client.join("room:a");
    await recorded(store, "user:7", "room:a");
    balancer.target = b;
    // This answers the GET that waits on the first node; the following ones go through the second.
    for (const name of ["first", "second"]) {
      await published(b, toUser(name, 1));
      await client.event(name);
    }
    assert.deepEqual([client.connects, client.disconnects], [1, []]);
    await a.stop("SIGKILL");
    await published(b, { room: "room:a", event: "missed", data: 2 });
    // Long before the next ping.
    assert.deepEqual(await client.event("missed"), [2]);
  });

  scenario("an upgrade that reaches another node moves the session there without losing an event", async (s) => {
    const [a, b, c] = await nodesOn(s, await s.redis(), 3);
    const balancer = await roundRobin(s, a, b, c);
    let sent = 0;
    const load = s.repeat(() => published([a, b, c][sent % 3], toUser("n", (sent += 1))));
    const clients = await Promise.all(Array.from({ length: 9 }, () => s.io(balancer, { token }).connected()));
    for (const client of clients) {
      await client.join("room:a");
      for (let n = 1; n <= 5; n += 1) assert.deepEqual(await client.ask("say", "a", n), [{ ok: true }]);
      await until(() => client.transport() === "websocket", "the WebSocket");
      assert.deepEqual(await client.ask("say", "a", 6), [{ ok: true }]);
    }
    const moved = async () => (await Promise.all([a, b, c].map((node) => node.metric('roomcast_closes_total{reason="moved"}')))).reduce((x, y) => x + y);
    await until(async () => (await moved()) > 0, "an upgrade that reached another node");
    await load.stop();
    await published(a, toUser("end", 0));
    for (const client of clients) {
      await client.event("end");
      const got = client.argsOf("n").map(([n]) => n);
      assert.deepEqual(got, Array.from({ length: sent - got[0] + 1 }, (_, n) => got[0] + n), "each event once, in order");
      assert.deepEqual([client.connects, client.disconnects], [1, []]);
    }
    await until(async () => (await Promise.all([a, b, c].map((node) => node.connections("socketio")))).reduce((x, y) => x + y) === 9, "nine connections");
  });

  scenario("a session that moved with its WebSocket is still replayed by the rooms that it was in", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    for (const moves of [false, true]) {
      const polling = await new Polling(a).open();
      const reply = JSON.parse((await polling.join({ token })).slice(2));
      await command(a, "/join", { user: "7", rooms: ["left"] });
      await published(a, toUser("first", 1));
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
      // The client saw nothing of what came on the WebSocket.
      const again = await rawSession(s, b, { pid: reply.pid, offset });
      await untilEnd(again, b, "left", "joined");
      again.sendText("41");
      again.close();
      if (again.reply.sid !== reply.sid) { assert.equal(moves, false, "not recovered"); continue; }
      assert.deepEqual([argumentsOf(again.texts, "mine"), argumentsOf(again.texts, "foreign")], [[1], []], `moved: ${moves}`);
    }
  });

  scenario("commands that arrive while a session moves with its WebSocket are carried out", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const lost = [];
    for (let turn = 0; turn < 6; turn += 1) {
      const { raw } = await probing(s, a, b);
      const count = 60;
      const answers = [];
      for (let n = 0; n < count; n += 1) {
        if (n === 20) raw.sendText("5");
        answers.push(command([a, b][n % 2], "/join", { user: "7", rooms: [`t${turn}:${n}`] }));
        // Spreads the commands over the time of the move.
        await a.get("/health/live");
      }
      for (const answer of await Promise.all(answers)) assert.equal(answer.status, 200, answer.text);
      for (let n = 0; n < count; n += 1) await published(b, { room: `t${turn}:${n}`, event: "n", data: n });
      await untilEnd(raw, b);
      const got = new Set(argumentsOf(raw.texts, "n"));
      for (let n = 0; n < count; n += 1) if (!got.has(n)) lost.push(`${turn}/${n}`);
      raw.close();
      await until(async () => (await b.connections("socketio")) === 0, "gone");
      await command(a, "/disconnect", { user: "7" });
    }
    assert.deepEqual(lost, [], "rooms whose join was answered 200 and that the session is not in");
  });

  scenario("a node that is killed while a WebSocket probes on it does not leave the client polling in a loop", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    const { polling } = await probing(s, a, b);
    await polling.get();
    await b.stop("SIGKILL");
    // After the upgrade timeout, a GET without packets waits again.
    let pending;
    await until(async () => {
      pending ??= polling.get().then((answer) => ((pending = undefined), answer), () => {});
      return (await Promise.race([pending, new Promise((resolve) => setTimeout(resolve, 1_000, "waits"))])) === "waits";
    }, "a GET that waits", 40_000);
  });

  scenario("the body of a request for an unknown session is not sent through Redis", async (s) => {
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
    assert.ok(sent < 2_000_000, `${sent} bytes of refused bodies went to Redis`);
  });
});
