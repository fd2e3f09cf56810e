// Clients that come to a node which has nobody in their rooms: it reads the log again, once for all that wait.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { passes, storm } from "../harness/storm.mjs";
import { tokenFor } from "../harness/token.mjs";

let asked = 0;
const joined = async (client, room, since) => {
  const id = `join ${(asked += 1)}`;
  client.send({ type: "join", room, since, id });
  return client.message((message) => message.id === id);
};

suite("backfill", () => {
  scenario("a storm after kill -9 in which everybody is recovered reads the log a few times", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2);
    await storm(s, store, [a, b], { count: 300, rooms: 10, maxPasses: 10 });
  });

  scenario("/ws with since and SSE with Last-Event-ID on a node that never had the room", async (s) => {
    const [a, b] = await nodesOn(s, await s.redis(), 2);
    const before = await published(a, { room: "room:a", event: "one", data: 1 });
    await published(a, { room: "room:other", event: "other", data: 1 });
    await published(a, { room: "room:a", event: "two", data: 2 });
    const client = s.ws(b, { token: tokenFor("7") });
    await client.welcomed();
    assert.equal((await joined(client, "room:a", before)).recovered, true);
    assert.deepEqual((await client.event("two")).data, 2);
    const stream = await s.sse(b, { rooms: ["room:a"], token: tokenFor("8"), headers: { "last-event-id": before } }).answered();
    await stream.event("two");
    const other = await s.sse(b, { rooms: ["room:other"], token: tokenFor("8"), headers: { "last-event-id": before } }).answered();
    await other.event("other");
    await published(a, { room: "room:a", event: "three", data: 3 });
    await stream.event("three");
    await client.event("three");
    assert.deepEqual(stream.events.map(({ name }) => name), ["two", "three"]);
    assert.equal((await passes(b))[1] + (await passes(b))[2], 0);
    // Nothing happened in this room: that needs no pass.
    const [complete] = await passes(b);
    assert.equal((await joined(client, "room:quiet", before)).recovered, true);
    assert.equal((await passes(b))[0], complete);
  });

  scenario("while Redis hangs a client gets a gap signal in time, and afterwards what it missed", async (s) => {
    const store = await s.redis();
    const [a, b] = await nodesOn(s, store, 2, { recovery: { backfill_timeout: "500ms" } });
    const before = await published(a, { room: "room:a", event: "one", data: 1 });
    await published(a, { room: "room:b", event: "two", data: 2 });
    await published(a, { room: "room:a", event: "three", data: 3 });
    const client = s.ws(b, { token: tokenFor("7") });
    await client.welcomed();
    const offset = (await joined(client, "room:seen")).offset;
    await until(async () => offset && (await b.metric("roomcast_window_rooms")) >= 1, "the rooms of the client");
    store.signal("SIGSTOP");
    assert.equal((await joined(client, "room:a", before)).recovered, false);
    await b.metricIs('roomcast_backfills_total{result="unavailable"}', 1);
    await b.metricIs('roomcast_recoveries_total{result="not_kept"}', 1);
    store.signal("SIGCONT");
    const again = await until(async () => {
      const answer = await joined(client, "room:b", before);
      return answer.recovered && answer;
    }, "a pass over the log");
    assert.equal(again.recovered, true);
    assert.equal((await client.event("two")).data, 2);
  });

  scenario("a room that floods shortens its own recovery and nobody else's", async (s) => {
    const store = await s.redis();
    const [a] = await nodesOn(s, store, 1, { recovery: { window_bytes: "1MB", room_bytes: "100kB" } });
    const client = s.ws(a, { token: tokenFor("7") });
    await client.welcomed();
    for (const room of ["room:flood", "room:calm"]) await joined(client, room);
    const before = await published(a, { room: "room:calm", event: "calm", data: 1 });
    await client.event("calm");
    const text = "x".repeat(1_000);
    for (let n = 0; n < 600; n += 1) await published(a, { room: n % 20 ? "room:flood" : "room:calm", event: "e", data: text });
    await until(() => client.eventsOf("e").length === 600, "all events");
    const other = s.ws(a, { token: tokenFor("8") });
    await other.welcomed();
    assert.equal((await joined(other, "room:calm", before)).recovered, true);
    await until(() => other.eventsOf("e").length === 30, "what the calm room had");
    assert.equal((await joined(other, "room:flood", before)).recovered, false);
    assert.ok((await a.metric("roomcast_window_events")) < 400);
  });

  scenario("a room that a client may not join is not kept because it asks", async (s) => {
    const [a] = await nodesOn(s, await s.redis(), 1);
    const client = s.io(a, { token: tokenFor("7") });
    await client.connected();
    const names = Array.from({ length: 50 }, (_, n) => `${n}`);
    await Promise.all(names.map((name) => client.ask("sneak", name)));
    for (const name of names) await published(a, { room: `closed:${name}`, event: "e", data: 1 });
    await published(a, { room: "user:7", event: "own", data: 1 });
    await client.event("own");
    const kept = await until(() => a.metric("roomcast_window_events"), "the client's own event");
    assert.equal(kept, 1);
  });
});
