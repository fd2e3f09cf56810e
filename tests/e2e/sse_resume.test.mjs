// How EventSource and its polyfills reconnect: where they name their last event, and how long they wait.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { now, tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const retries = (client) => [...client.body.matchAll(/^retry: (.*)$/gm)].map(([, wait]) => Number(wait));

/** A stream of room:a that resumes after the id in `query` or `headers`. */
const continued = (sse, node, { query = {}, headers }) =>
  sse({ url: node.url }, { rooms: ["room:a"], token, query, headers });

suite("resuming Server-Sent Events", () => {
  for (const name of ["lastEventId", "Last-Event-ID", "last_event_id", "last-event-id", "evs_last_event_id"]) {
    scenario(`?${name}= resumes like the Last-Event-ID header`, async ({ node, sse }) => {
      const one = await node();
      const id = await published(one, { room: "room:a", event: "seen", data: 0 });
      await published(one, { room: "room:a", event: "missed", data: 1 });
      const back = await continued(sse, one, { query: { [name]: id } }).answered();
      await back.event("missed");
      assert.deepEqual(back.events.map(({ name: event }) => event), ["missed"]);
    });
  }

  scenario("the header overrides the query, an empty header is ignored, and an invalid query causes a gap event", async ({ node, sse }) => {
    const one = await node();
    const first = await published(one, { room: "room:a", event: "one", data: 1 });
    const second = await published(one, { room: "room:a", event: "two", data: 2 });
    await published(one, { room: "room:a", event: "three", data: 3 });
    const both = await continued(sse, one, { query: { lastEventId: first }, headers: { "last-event-id": second } }).answered();
    await both.event("three");
    assert.deepEqual(both.events.map(({ name }) => name), ["three"]);
    const empty = await continued(sse, one, { query: { lastEventId: second }, headers: { "last-event-id": "" } }).answered();
    await empty.event("three");
    assert.deepEqual(empty.events.map(({ name }) => name), ["three"]);
    await (await continued(sse, one, { query: { lastEventId: "poison" } }).answered()).event("gap");
  });

  scenario("retry is at least a second and differs between clients: at the start, at expiry and at a stop", async ({ node, sse }) => {
    const one = await node({ auth: { leeway: "0s" } });
    const many = await Promise.all(Array.from({ length: 12 }, () => sse(one, { token, rooms: ["room:a"] }).answered()));
    const expiring = await sse(one, { token: tokenFor("8", { exp: now() + 8 }), rooms: ["room:a"] }).answered();
    await until(() => expiring.ended, "the stream to end when the token expires");
    await until(() => many.every((client) => retries(client).length === 1), "the first retry of each");
    await one.stop();
    await until(() => many.every((client) => client.ended), "the end of all");
    const all = [expiring, ...many].map(retries);
    assert.ok(all.every((waits) => waits.length === 2), JSON.stringify(all));
    assert.ok(all.flat().every((wait) => wait >= 1_000 && wait <= 2_000), JSON.stringify(all));
    for (const which of [0, 1]) assert.ok(new Set(all.map((waits) => waits[which])).size > 3, JSON.stringify(all));
  });

  scenario("an EventSource that is refused after expiry waits between its attempts", async ({ node, sse, eventSource }) => {
    const one = await node({ auth: { leeway: "0s" } });
    const client = await eventSource(one, { token: tokenFor("7", { exp: now() + 8 }), rooms: ["room:a"], names: [] }).opened();
    await until(() => client.errors.length > 0, "the end of the stream");
    const raw = await sse(one, { token: tokenFor("7", { exp: now() - 60 }), rooms: ["room:a"] }).answered();
    assert.equal(raw.status, 401);
    await until(() => client.errors.length > 1, "one attempt more");
    const refused = await one.metric('roomcast_handshakes_total{result="token_expired"}');
    assert.ok(refused <= 3, `${refused} attempts`);
  });
});
