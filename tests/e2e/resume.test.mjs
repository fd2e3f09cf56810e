// What a review found: clients that came back and were not recovered, or missed or got something unseen.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };
const own = (name, data, more) => ({ room: "user:7", event: name, data, ...more });

/** Waits until the client is back, and for what it was told of its recovery. */
async function back(client, connects = 2) {
  await until(() => client.connects === connects && client.socket.connected, () => `connection ${connects}; now ${client.connects}`);
  return client.socket.recovered;
}

suite("what a review found: resuming", () => {
  scenario("Socket.IO: quiet for longer than the window while another room is busy: recovered", async ({ node, proxy, io }) => {
    const one = await node({ recovery: { window: "3s" } });
    const balancer = await proxy(one);
    const silent = await io(balancer, { token, ...WEBSOCKET }).connected();
    const quiet = await io(balancer, { token: tokenFor("8"), ...WEBSOCKET }).connected();
    await published(one, { room: "user:8", event: "early", data: 1 });
    await quiet.event("early");
    const end = Date.now() + 4000;
    await until(async () => {
      await published(one, { room: "room:busy", event: "n", data: 1 });
      return Date.now() > end;
    }, "4 s of a busy room");
    balancer.cut();
    await published(one, { rooms: ["user:7", "user:8"], event: "missed", data: 1 });
    for (const client of [silent, quiet]) {
      assert.equal(await back(client), true);
      await client.event("missed");
      await published(one, { rooms: ["user:7", "user:8"], event: "live", data: 1 });
      await client.event("live");
      assert.equal(client.argsOf("missed").length, 1);
    }
  });

  scenario("Socket.IO: an event, a probe and a volatile event, then cut: recovered", async ({ redis, node, proxy, io }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url } });
    const balancer = await proxy(one);
    const client = await io(balancer, { token, ...WEBSOCKET }).connected();
    await published(one, own("stored", 1));
    await client.event("stored");
    assert.equal((await one.get("/socket/ping")).status, 200);
    await published(one, own("volatile", 2, { volatile: true }));
    await client.event("volatile");
    // Nothing stored before it is back: that would hide an offset that lies ahead of the node.
    balancer.cut();
    assert.equal(await back(client), true);
    balancer.cut();
    await published(one, own("missed", 3));
    assert.equal(await back(client, 3), true);
    assert.deepEqual(await client.event("missed"), [3]);
    assert.deepEqual([client.argsOf("stored"), client.argsOf("missed")], [[[1]], [[3]]]);
  });

  scenario("/ws: joined before Redis ran: the first event, or a gap, never silence", async ({ redis, node, ws }) => {
    const store = await redis({ start: false });
    const one = await node({ redis: { url: store.url, timeout: "500ms" } }, { ready: false });
    const client = await ws(one, { token }).welcomed();
    const joined = await client.ask({ type: "join", room: "room:a" });
    assert.equal(joined.type, "joined");
    assert.notEqual(joined.offset, "0-0-0");
    await store.start();
    await store.cli("XADD", "roomcast:events", "*", "room", "room:a", "event", "first", "data", "1");
    await client.message(({ type, room, event }) => room === "room:a" && (type === "gap" || event === "first"));
    await until(() => one.answers("/health"), "ready by itself");
    await published(one, { room: "room:a", event: "second", data: 2 });
    await client.event("second");
    assert.ok(client.eventsOf("first").length <= 1);
  });

  scenario("/ws: `since` in an automatic room: each event exactly once", async ({ node, ws }) => {
    const one = await node();
    const offsets = [];
    for (const number of [1, 2, 3]) offsets.push(await published(one, own("n", number)));
    const client = await ws(one, { token }).welcomed();
    await published(one, own("n", 4));
    await client.message(({ data }) => data === 4);
    const joined = await client.ask({ type: "join", room: "user:7", since: offsets[0] });
    assert.deepEqual([joined.type, joined.recovered], ["joined", true]);
    await published(one, own("n", 5));
    await client.message(({ data }) => data === 5);
    const got = client.eventsOf("n").map(({ data }) => data);
    assert.deepEqual(got.toSorted(), [2, 3, 4, 5]);
  });

  scenario("Socket.IO: back while its old connection is half-open: recovered, the old one replaced", async ({ node, proxy, io }) => {
    const one = await node();
    const balancer = await proxy(one);
    const client = await io(balancer, { token, ...WEBSOCKET }).connected();
    await published(one, own("before", 1));
    await client.event("before");
    balancer.freeze();
    await published(one, own("missed", 2));
    client.socket.io.engine.close();
    assert.equal(await back(client), true);
    assert.deepEqual(await client.event("missed"), [2]);
    assert.equal(await one.metric('roomcast_closes_total{reason="replaced"}'), 1);
    await until(async () => (await one.connections("socketio")) === 1, "the old connection gone");
    await published(one, own("after", 3));
    await client.event("after");
    assert.deepEqual(client.events.map(({ name }) => name), ["before", "missed", "after"]);
  });

  scenario("Socket.IO: another user with a stolen or guessed pid gets a new session, and nobody is disturbed", async ({ node, proxy, io, keep }) => {
    const one = await node();
    const balancer = await proxy(one);
    const victim = await io(balancer, { token, ...WEBSOCKET, reconnection: false }).connected();
    await published(one, own("first", 1));
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
    await published(one, own("live", 2));
    await victim.event("live");
    assert.deepEqual([victim.connects, victim.disconnects, victim.socket.id], [1, [], sid]);
    assert.equal(await one.metric('roomcast_closes_total{reason="replaced"}'), 0);

    balancer.cut();
    await victim.disconnected();
    await published(one, own("missed", 3));
    thieves.push(...(await steal()));
    victim.socket.connect();
    assert.equal(await back(victim), true);
    assert.deepEqual([victim.socket.id, await victim.event("missed")], [sid, [3]]);
    await published(one, { rooms: ["user:7", "user:8"], event: "end", data: 4 });
    for (const thief of thieves) {
      await thief.text((text) => text.includes('"end"'));
      assert.ok(!thief.texts.some((text) => /"(first|live|missed)"/.test(text)), `${thief.texts}`);
    }
  });
});
