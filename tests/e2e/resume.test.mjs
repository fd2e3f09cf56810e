// A client that returns to its node: it is recovered, gets each event once, or is notified of a gap.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { argumentsOf, offsetAfter, rawSession, reconnected, toUser, untilEnd } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };

suite("resume", () => {
  scenario("Socket.IO: a client that was quiet for longer than the window, while another room was busy, is recovered", async ({ node, proxy, io }) => {
    const one = await node({ recovery: { window: "8s" } });
    const balancer = await proxy(one);
    const silent = await io(balancer, { token, ...WEBSOCKET }).connected();
    const quiet = await io(balancer, { token: tokenFor("8"), ...WEBSOCKET }).connected();
    await published(one, { room: "user:8", event: "early", data: 1 });
    await quiet.event("early");
    const end = Date.now() + 9_000;
    await until(async () => {
      await published(one, { room: "room:busy", event: "n", data: 1 });
      return Date.now() > end;
    }, "9 s of a busy room");
    // It is written to connections that do not carry it any more: the clients come back with their old offsets.
    balancer.mute();
    const delivered = () => one.metric('roomcast_deliveries_total{protocol="socketio"}');
    const before = await delivered();
    await published(one, { rooms: ["user:7", "user:8"], event: "missed", data: 1 });
    await until(async () => (await delivered()) === before + 2, "written to both");
    balancer.cut();
    for (const client of [silent, quiet]) {
      assert.equal(await reconnected(client), true);
      await client.event("missed");
      await published(one, { rooms: ["user:7", "user:8"], event: "live", data: 1 });
      await client.event("live");
      assert.equal(client.argsOf("missed").length, 1);
    }
  });

  scenario("Socket.IO: a client is recovered after an event, a probe of /socket/ping and a volatile event", async ({ redis, node, proxy, io }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const balancer = await proxy(one);
    const client = await io(balancer, { token, ...WEBSOCKET }).connected();
    await published(one, toUser("stored", 1));
    await client.event("stored");
    await until(() => one.answers("/socket/ping"), "a probe that goes through");
    await published(one, toUser("volatile", 2, { volatile: true }));
    await client.event("volatile");
    // Nothing is stored until the client is back, or an offset ahead of the log would go unnoticed.
    balancer.cut();
    assert.equal(await reconnected(client), true);
    balancer.cut();
    await published(one, toUser("missed", 3));
    assert.equal(await reconnected(client, 3), true);
    assert.deepEqual(await client.event("missed"), [3]);
    assert.deepEqual([client.argsOf("stored"), client.argsOf("missed")], [[[1]], [[3]]]);
  });

  scenario("Socket.IO: a client that returns while its old connection is half-open is recovered and replaces the old connection", async ({ node, proxy, io }) => {
    const one = await node();
    const balancer = await proxy(one);
    const client = await io(balancer, { token, ...WEBSOCKET }).connected();
    await published(one, toUser("before", 1));
    await client.event("before");
    balancer.freeze();
    await published(one, toUser("missed", 2));
    client.socket.io.engine.close();
    assert.equal(await reconnected(client), true);
    assert.deepEqual(await client.event("missed"), [2]);
    await until(async () => (await one.metric('roomcast_closes_total{reason="replaced"}')) === 1, "the old connection replaced");
    await until(async () => (await one.connections("socketio")) === 1, "the old connection gone");
    await published(one, toUser("after", 3));
    await client.event("after");
    assert.deepEqual(client.events.map(({ name }) => name), ["before", "missed", "after"]);
  });

  scenario("Socket.IO: another user with a stolen or guessed pid gets a new session, and the owner notices nothing", async ({ node, proxy, io, keep }) => {
    const one = await node();
    const balancer = await proxy(one);
    const victim = await io(balancer, { token, ...WEBSOCKET, reconnection: false }).connected();
    await published(one, toUser("first", 1));
    await victim.event("first");
    const { id: sid, _pid: pid } = victim.socket;
    const offset = victim.events[0].offset;
    assert.ok(pid && offset);
    const guessed = (pid[0] === "A" ? "B" : "A") + pid.slice(1);
    const steal = async () => {
      const thieves = [];
      for (const [user, id] of [["8", pid], ["8", guessed], ["7", guessed], ["8", sid]]) {
        const thief = keep(await engineSocket(one));
        thief.sendText(`40${JSON.stringify({ token: tokenFor(user), pid: id, offset })}`);
        const session = JSON.parse((await thief.text((text) => text.startsWith("40"))).slice(2));
        assert.notEqual(session.sid, sid, `${user} took ${id}`);
        assert.notEqual(session.pid, pid, `${user} took ${id}`);
        if (user === "8") thieves.push(thief);
      }
      return thieves;
    };
    const thieves = await steal();
    await published(one, toUser("live", 2));
    await victim.event("live");
    assert.deepEqual([victim.connects, victim.disconnects, victim.socket.id], [1, [], sid]);
    assert.equal(await one.metric('roomcast_closes_total{reason="replaced"}'), 0);

    balancer.cut();
    await victim.disconnected();
    await published(one, toUser("missed", 3));
    thieves.push(...(await steal()));
    victim.socket.connect();
    assert.equal(await reconnected(victim), true);
    assert.deepEqual([victim.socket.id, await victim.event("missed")], [sid, [3]]);
    await published(one, { rooms: ["user:7", "user:8"], event: "end", data: 4 });
    for (const thief of thieves) {
      await thief.text((text) => text.includes('"end"'));
      assert.ok(!thief.texts.some((text) => /"(first|live|missed)"/.test(text)), `${thief.texts}`);
    }
  });

  scenario("a resumed session is in all its rooms, also those that the backend added beyond rooms_per_session", async (s) => {
    const node = await s.node({ limits: { rooms_per_session: 3 } });
    const first = await rawSession(s, node);
    for (const rooms of [["b:1", "b:2", "b:3"], ["b:4", "b:5"]]) {
      assert.deepEqual((await command(node, "/join", { user: "7", rooms })).json(), { sessions: 1 });
    }
    const offset = await offsetAfter(first, node, "first");
    first.close();
    await until(async () => (await node.connections("socketio")) === 0, "gone");
    const again = await rawSession(s, node, { pid: first.reply.pid, offset });
    assert.equal(again.reply.sid, first.reply.sid, "recovered");
    for (let n = 1; n <= 5; n += 1) await published(node, { room: `b:${n}`, event: "n", data: n });
    await untilEnd(again, node, ...[1, 2, 3, 4, 5].map((n) => `b:${n}`));
    assert.deepEqual(argumentsOf(again.texts, "n").toSorted(), [1, 2, 3, 4, 5]);
  });

  scenario("/ws: a client that came before Redis was up is let in with it, and gets the first event or a gap", async ({ redis, node, ws }) => {
    const store = await redis({ start: false });
    const one = await node({ redis: { url: store.url, timeout: "2s" } }, { ready: false });
    const client = ws(one, { token });
    await store.start();
    await client.welcomed();
    const joined = await client.ask({ type: "join", room: "room:a" });
    assert.equal(joined.type, "joined");
    assert.notEqual(joined.offset, "0-0-0");
    await store.cli("XADD", "roomcast:events", "*", "room", "room:a", "event", "first", "data", "1");
    await client.message(({ type, room, event }) => room === "room:a" && (type === "gap" || event === "first"));
    await until(() => one.answers("/health"), "ready by itself");
    await published(one, { room: "room:a", event: "second", data: 2 });
    await client.event("second");
    assert.ok(client.eventsOf("first").length <= 1);
  });

  scenario("/ws: a join of an automatic room with `since` delivers each event exactly once", async ({ node, ws }) => {
    const one = await node();
    const offsets = [];
    for (const number of [1, 2, 3]) offsets.push(await published(one, toUser("n", number)));
    const client = await ws(one, { token }).welcomed();
    await published(one, toUser("n", 4));
    await client.message(({ data }) => data === 4);
    const joined = await client.ask({ type: "join", room: "user:7", since: offsets[0] });
    assert.deepEqual([joined.type, joined.recovered], ["joined", true]);
    await published(one, toUser("n", 5));
    await client.message(({ data }) => data === 5);
    const got = client.eventsOf("n").map(({ data }) => data);
    assert.deepEqual(got.toSorted(), [2, 3, 4, 5]);
  });
});
