// @roomcast/server against the real binary: publishing, batches, repeats, commands and presence.
import assert from "node:assert/strict";
import { BatchError, Roomcast, RoomcastError } from "../../packages/server/src/index.js";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { startFront } from "./front.mjs";

const client = (node, options) => new Roomcast({ url: node.url, key: KEY, ...options });
const listener = async (scene, node, user = "7", room = "room:a") => (await scene.io(node, { token: tokenFor(user) }).connected()).join(room);

/** An event after all others, by which the receiver knows that it has them. */
async function received(roomcast, listening, name) {
  await roomcast.publish("room:a", "end");
  await listening.event("end");
  return listening.argsOf(name);
}

suite("@roomcast/server", () => {
  scenario("events arrive with one argument, several, or none, in one room or many, and a repeated id once", async (scene) => {
    const node = await scene.node();
    const roomcast = client(node);
    const [seven, eight] = [await listener(scene, node), await listener(scene, node, "8")];
    const first = await roomcast.publish("room:a", "said", { text: "hi" }, { id: "once" });
    assert.match(first.offset, /^[0-9a-f]+-\d+-\d+$/);
    assert.deepEqual(await roomcast.publish("room:a", "said", { text: "again" }, { id: "once" }), first);
    await roomcast.publish({ rooms: ["room:a", "user:7"], event: "said", args: [1, "two"] });
    await roomcast.publish("room:a", "said", 3, { except: ["user:8"] });
    await roomcast.publish("room:a", "said");
    assert.deepEqual(await roomcast.publish("room:a", "said", 5, { volatile: true }), { offset: null });
    assert.deepEqual(await received(roomcast, seven, "said"), [[{ text: "hi" }], [1, "two"], [3], [], [5]]);
    assert.deepEqual(await received(roomcast, eight, "said"), [[{ text: "hi" }], [1, "two"], [], [5]]);
  });

  scenario("any number of events is published in order, and those that are refused are named", async (scene) => {
    const node = await scene.node();
    const roomcast = client(node);
    const listening = await listener(scene, node);
    async function* numbers(count) {
      for (let number = 0; number < count; number++) yield { room: "room:a", event: "n", data: number };
    }
    const results = await roomcast.publishAll(numbers(2500));
    assert.equal(new Set(results.map(({ offset }) => offset)).size, 2500);
    assert.equal(await node.metric('roomcast_events_total{source="http"}'), 2500);
    assert.deepEqual((await received(roomcast, listening, "n")).flat(), Array.from({ length: 2500 }, (_, at) => at));

    const bad = { room: "x".repeat(300), event: "n" };
    const error = await roomcast.publishAll([{ room: "room:a", event: "ok" }, bad, { room: "room:a", event: "ok" }]).catch((error) => error);
    assert.ok(error instanceof BatchError && error instanceof RoomcastError);
    assert.deepEqual(error.results.map(({ code, offset }) => code ?? typeof offset), ["string", "bad_room", "string"]);
    assert.equal(error.transient, false);
    assert.deepEqual(await roomcast.publishAll([]), []);
  });

  scenario("a batch over publish.max_body is sent in parts", async (scene) => {
    const node = await scene.node({ publish: { keys: [KEY], max_body: 4000, max_event: 2000 } });
    const roomcast = client(node);
    const listening = await listener(scene, node);
    const events = Array.from({ length: 20 }, (_, at) => ({ room: "room:a", event: "n", data: { at, text: "x".repeat(500) } }));
    await roomcast.publishAll(events);
    assert.deepEqual((await received(roomcast, listening, "n")).map(([{ at }]) => at), events.map(({ data }) => data.at));
    const tooBig = { room: "room:a", event: "n", data: "x".repeat(5000) };
    const { results } = await roomcast.publishAll([tooBig, events[0]]).catch((error) => error);
    assert.equal(results[0].code, "body_too_big");
    assert.ok(results[1].offset);
  });

  scenario("what cannot be published is refused where it is called", async (scene) => {
    const node = await scene.node();
    const roomcast = client(node);
    const wrong = [{ event: "n" }, { room: "a" }, { room: "a", rooms: ["b"], event: "n" }, { rooms: [], event: "n" }, { room: "a", event: "connect" }, { room: "a", event: "n", data: 1, args: [1] }, { rooms: Array(101).fill("a"), event: "n" }];
    for (const event of wrong) await assert.rejects(roomcast.publish(event), { code: "bad_event", transient: false }, JSON.stringify(event));
    await assert.rejects(roomcast.publishAll([{ room: "a", event: "n" }, { room: "a" }]), { code: "bad_event" });
    assert.equal(await node.metric('roomcast_events_total{source="http"}'), 0);
    // Not before the first call: a build loads modules without secrets.
    await assert.rejects(new Roomcast({ url: node.url }).publish("a", "n"), /ROOMCAST_PUBLISH__KEYS/);
  });

  scenario("a lost answer, a lost request and a timeout are repeated with the same id, and the event arrives once", async (scene) => {
    const node = await scene.node();
    const front = scene.keep(await startFront(node.url));
    const listening = await listener(scene, node);
    // As long as the request that hangs takes, and longer than one that passes may take on a busy machine.
    const roomcast = client(front, { timeout: 6000 });
    front.faults = ["lose the answer", "lose", "hang"];
    await roomcast.publish("room:a", "said", 1);
    assert.equal(front.requests.length, 4);
    assert.equal(new Set(front.requests.map((body) => JSON.parse(body).id)).size, 1);

    front.faults = ["lose the answer", { status: 503, headers: { "retry-after": "0.2" } }];
    await roomcast.publishAll([2, 3].map((data) => ({ room: "room:a", event: "said", data })));
    assert.equal(front.requests.length, 7);

    // The id of what failed is known, so that the application can repeat it.
    front.faults = ["hang"];
    const { id, code, transient } = await client(front, { timeout: 1000, retries: 0 }).publish("room:a", "said", 4).catch((error) => error);
    assert.deepEqual([code, transient], ["timeout", true]);
    await roomcast.publish("room:a", "said", 4, { id });
    assert.deepEqual((await received(client(node), listening, "said")).flat(), [1, 2, 3, 4]);
  });

  scenario("mistakes and volatile events are not repeated, and a signal ends the waiting", async (scene) => {
    const node = await scene.node();
    const front = scene.keep(await startFront(node.url));
    const roomcast = client(front);
    await assert.rejects(roomcast.publish("x".repeat(300), "n"), { status: 400, code: "bad_room", transient: false });
    await assert.rejects(client(front, { key: "wrong" }).publish("room:a", "n"), { status: 401, code: "unauthorized", transient: false });
    front.faults = ["lose"];
    await assert.rejects(roomcast.publish("room:a", "n", 1, { volatile: true }), { code: "unreachable" });
    assert.equal(front.requests.length, 3);

    const aborter = new AbortController();
    front.faults = Array(20).fill({ status: 503 });
    const waiting = client(front, { retries: 20 }).publish("room:a", "n", 1, { signal: aborter.signal });
    await until(() => front.requests.length >= 5, "some attempts");
    aborter.abort(new Error("enough"));
    await assert.rejects(waiting, /enough/);
  });

  scenario("commands and presence reach the whole cluster, by user, session and room", async (scene) => {
    const redis = await scene.redis();
    const nodes = await Promise.all([1, 2].map(() => scene.node({ redis: { url: redis.url } })));
    const roomcast = client(nodes[0]);
    const [seven, eight] = [await listener(scene, nodes[0], "7", "room:b"), await listener(scene, nodes[1], "8", "room:b")];
    assert.deepEqual(await roomcast.join({ user: 8, rooms: ["room:c/ü"] }), { sessions: 1 });
    await roomcast.join({ session: seven.socket.id, room: "room:c/ü" });
    const { users, connections } = await roomcast.room("room:c/ü");
    assert.deepEqual([users, connections], [["7", "8"], 2]);
    assert.deepEqual(await roomcast.leave({ in: "room:b", room: "room:c/ü" }), { sessions: 2 });
    assert.equal((await roomcast.room("room:c/ü", { namespace: "/" })).connections, 0);

    assert.equal((await roomcast.user("8")).online, true);
    assert.deepEqual((await roomcast.users([7, "nobody", "8"])).map(({ user, online }) => [user, online]), [["7", true], ["nobody", false], ["8", true]]);
    assert.equal((await roomcast.users(Array.from({ length: 1001 }, (_, at) => at))).length, 1001);
    assert.deepEqual(await roomcast.users([]), []);
    assert.deepEqual(await roomcast.disconnect({ user: "8" }), { sessions: 1 });
    assert.equal(await eight.disconnected(), "io server disconnect");

    const { sessions, until: end } = await roomcast.revoke({ user: 7, for: "1h" });
    assert.ok(sessions === 1 && Date.parse(end) > Date.now(), end);
    assert.equal(await seven.disconnected(), "io server disconnect");
    const again = scene.io(nodes[1], { token: tokenFor("7") });
    assert.equal((await again.refused()).data.code, "revoked");
    await assert.rejects(roomcast.revoke({ jti: "x", for: "99d" }), { status: 400, code: "bad_field" });
    await assert.rejects(roomcast.join({ user: 7 }), { status: 400, code: "bad_field" });
  });
});
