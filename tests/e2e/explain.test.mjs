// Why a user did or did not get an event: GET /explain and `roomcast explain`, over two nodes, for live and for ended sessions.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { stopwatch, until } from "../harness/deadline.mjs";
import { eventOf, streamOf } from "../harness/lines.mjs";
import { roomcast } from "../harness/node.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn, reconnected } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
/** Milliseconds: a second, as docs/limits.md promises, on a machine that is busy with others. */
const SOON = 6_000;
const bearer = { authorization: `Bearer ${KEY}` };

/** The answer of GET /explain, as it comes: a node that does not answer within 0.8 s is left out. */
async function answered(node, query) {
  const answer = await node.get(`/explain?${new URLSearchParams(query)}`, bearer);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
}

/** The answer of all nodes. */
async function explained(node, query) {
  let last;
  return until(async () => {
    last = await answered(node, query);
    return last.nodes_pending === 0 && last;
  }, () => `all nodes; ${JSON.stringify(last)}`);
}

/** The answer, once it has this verdict. */
const verdict = (node, query, wanted) => {
  let last;
  return until(async () => {
    last = await explained(node, query);
    return last.verdict === wanted && last;
  }, () => `verdict ${wanted}; ${JSON.stringify(last)}`);
};

const near = (time, begun) => assert.ok(Date.parse(time) >= begun - 1_000 && Date.parse(time) <= Date.now() + 1_000, `${time} is not now`);
const send = (node, room, more) => published(node, { room, event: "news", data: "a secret payload", ...more });

suite("Explain", () => {
  scenario("delivered: when, to which session of which node, for every kind of client", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    const begun = Date.now();
    const io = await (await s.io(nodes[0], { token: tokenFor("7"), ...WEBSOCKET }).connected()).join("room:a");
    const polling = await (await s.io(nodes[1], { token: tokenFor("7"), transports: ["polling"] }).connected()).join("room:a");
    const ws = await (await s.ws(nodes[1], { token: tokenFor("7") }).welcomed()).join("room:a");
    const sse = await s.sse(nodes[1], { token: tokenFor("7"), rooms: ["room:a"] }).answered();
    const event = await send(nodes[0], "room:a");
    await Promise.all([io.event("news"), polling.event("news"), ws.event("news"), sse.event("news")]);
    for (const node of nodes) {
      const query = { user: "7", room: "room:a", event };
      const answer = await until(async () => {
        const answer = await explained(node, query);
        return answer.outcomes.delivered === 4 && answer.sessions.every(({ at, outbox_bytes }) => at && outbox_bytes === 0) && answer;
      }, "all four have it");
      assert.equal(answer.verdict, "delivered");
      assert.match(answer.message, /^user 7: written to the client's connection \(of 4 sessions: 4 delivered\)$/);
      assert.deepEqual(answer.rule, { name: '[[rooms]] 2: match = "room:<name>", join = "allow"', join: "allow" });
      const { at, ...shown } = answer.event;
      assert.deepEqual(shown, { offset: event, status: "kept", event: "news", namespace: "/", rooms: ["room:a"], except: [], source: "http" });
      near(at, begun);
      assert.deepEqual(answer.sessions.map(({ protocol }) => protocol).toSorted(), ["socketio", "socketio", "sse", "ws"]);
      assert.equal(new Set(answer.sessions.map(({ node }) => node)).size, 2, "each names its node");
      assert.ok(answer.sessions.some(({ session }) => session === io.socket.id));
      for (const session of answer.sessions) {
        near(session.at, begun);
        assert.deepEqual([session.outcome, session.in_room, session.by, session.outbox_bytes], ["delivered", true, "rule", 0]);
        assert.equal(session.decided_by, 'let in by [[rooms]] 2: match = "room:<name>", join = "allow"');
      }
      assert.deepEqual([answer.nodes.length, answer.nodes_pending, answer.sessions_left_out], [2, 0, 0]);
      near(answer.sees_back_to, begun - 60_000);
      const text = JSON.stringify(answer);
      assert.ok(!text.includes("secret") && !text.includes(tokenFor("7").slice(0, 20)) && !text.includes(io.socket._pid), text);
    }
    // Without an event: in the room, since when, by which rule.
    const inside = await explained(nodes[1], { user: "7", room: "room:a" });
    assert.equal(inside.verdict, "in_room");
    assert.ok(inside.sessions.every(({ in_room_since }) => (near(in_room_since, begun), true)));
    const own = await explained(nodes[1], { user: "7", room: "user:7" });
    assert.match(own.message, /in the room: joined at connect by \[\[rooms\]\] 1: match = "user:\{user\}", join = "auto"/);
  });

  scenario("joined after it, left before it, excepted, and never in the room", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    const begun = Date.now();
    const clients = {
      7: await s.io(nodes[0], { token: tokenFor("7"), ...WEBSOCKET }).connected(),
      8: await s.ws(nodes[0], { token: tokenFor("8") }).welcomed(),
    };
    for (const [user, client] of Object.entries(clients)) {
      const ask = (event, want, room = "room:b") => verdict(nodes[1], { user, room, event }, want);
      const early = await send(nodes[1], "room:b");
      assert.match((await ask(early, "not_in_room")).message, /not in the room: \[\[rooms\]\] 2: match = "room:<name>", join = "allow" lets it in, but its client has not joined$/);
      await client.join("room:b");
      near((await ask(early, "joined_later")).at, begun);
      const got = await send(nodes[1], "room:b");
      await client.event("news");
      await ask(got, "delivered");
      // In a room that the event excepts.
      const excepted = await ask(await send(nodes[1], "room:b", { except: ["room:x", `user:${user}`] }), "excepted");
      assert.match(excepted.message, new RegExp(`was in room "user:${user}", which the event excepts`));
      assert.deepEqual(excepted.event.except, ["room:x", `user:${user}`]);
      await command(nodes[1], "/leave", { user, room: "room:b" });
      const late = await ask(await send(nodes[1], "room:b"), "left_before");
      assert.match(late.message, /had left the room: a \/leave of the backend/);
      near(late.at, begun);
      await ask(got, "delivered");
      // Put there by the backend, which no rule would do.
      await command(nodes[1], "/join", { user, room: "closed:c" });
      const put = await verdict(nodes[1], { user, room: "closed:c" }, "in_room");
      assert.deepEqual([put.sessions[0].by, put.sessions[0].decided_by], ["command", "a /join of the backend"]);
      near(put.sessions[0].in_room_since, begun);
    }
  });

  scenario("refused: the rule that denies, no rule, the token's claim, the backend, and when", async (s) => {
    const backend = s.serve(await startBackend());
    backend.answer = ({ room }) => (room === "ask:no" ? { allow: false, error: "no" } : { allow: true });
    const store = await s.redis();
    const rooms = [
      { match: "closed:*", join: "deny" },
      { match: "ask:<name>", join: "ask" },
    ];
    const on = [{ event: "join", join: "ask:{0}", ack: [{ ok: true }] }];
    const nodes = await nodesOn(s, store, 2, { rooms, on, ...backend.config() });
    const begun = Date.now();
    const ws = await s.ws(nodes[0], { token: tokenFor("7", { rooms: ["closed:mine", "team:1:*"] }) }).welcomed();
    const ask = (room, want) => verdict(nodes[1], { user: "7", room }, want);
    const deny = '[[rooms]] 1: match = "closed:*", join = "deny"';
    const asks = '[[rooms]] 2: match = "ask:<name>", join = "ask"';
    assert.equal((await ws.ask({ type: "join", room: "closed:a" })).type, "error");
    const denied = await ask("closed:a", "not_in_room");
    assert.equal(denied.message, `user 7: not in the room: its join was refused, forbidden. ${deny} refuses it, and the token's rooms claim (auth.rooms_claim) does not list it`);
    assert.equal(denied.sessions[0].refused.code, "forbidden");
    near(denied.sessions[0].refused.at, begun);
    near(denied.at, begun);
    assert.match((await ask("nothing:a", "not_in_room")).message, /not in the room: no \[\[rooms\]\] rule matches it, .* cannot be joined$/);
    assert.equal((await ask("nothing:a", "not_in_room")).rule, null);
    assert.equal((await ask("closed:mine", "in_room")).sessions[0].decided_by, 'the token\'s rooms claim (auth.rooms_claim) lists "closed:mine"');
    assert.match((await ask("team:1:x", "not_in_room")).message, /lists "team:1:\*", but its client has not joined$/);
    assert.match((await ask("ask:no", "not_in_room")).message, /match = "ask:<name>", join = "ask" lets the backend decide, and its client has not joined$/);
    assert.equal((await ws.ask({ type: "join", room: "ask:no" })).type, "error");
    const refused = await ask("ask:no", "not_in_room");
    assert.match(refused.message, /its join was refused, [a-z_]+\. \[\[rooms\]\] 2/);
    near(refused.sessions[0].refused.at, begun);
    await ws.join("ask:yes");
    assert.equal((await ask("ask:yes", "in_room")).sessions[0].decided_by, `the backend let it in, asked by ${asks}`);
    // The rule is also named where nobody is connected.
    const nobody = await explained(nodes[0], { user: "8", room: "closed:a" });
    assert.deepEqual([nobody.verdict, nobody.rule.name, nobody.sessions], ["not_connected", deny, []]);
    assert.match(nobody.message, /^user 8: not connected, and no session of this user has ended since \d{4}-/);
  });

  scenario("not connected: since when and why, on whatever node it was, and what it got until then", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    const begun = Date.now();
    const client = await (await s.io(nodes[0], { token: tokenFor("7"), ...WEBSOCKET }).connected()).join("room:a");
    const before = await send(nodes[1], "room:a");
    await client.event("news");
    assert.deepEqual((await command(nodes[1], "/disconnect", { user: "7" })).json(), { sessions: 1 });
    const id = client.socket.id;
    await client.disconnected();
    const after = await send(nodes[1], "room:a");
    const gone = await verdict(nodes[1], { user: "7", room: "room:a", event: after }, "not_connected");
    assert.match(gone.message, /^user 7: not connected when the event came: the session had ended, or lost its connection: disconnected\. The backend asked for it by `\/disconnect`\.$/);
    near(gone.at, begun);
    const [session] = gone.sessions;
    assert.deepEqual([session.ended.reason, session.ended.resumable_until, session.in_room, session.by], ["disconnected", null, true, "rule"]);
    near(session.ended.at, begun);
    await verdict(nodes[1], { user: "7", room: "room:a", event: before }, "delivered");
    const now = await explained(nodes[1], { user: "7", room: "room:a" });
    assert.deepEqual([now.verdict, now.sessions[0].outcome, now.sessions[0].session], ["not_connected", "ended", id ?? session.session]);
    // It connects again, elsewhere: this event came before.
    await s.ws(nodes[1], { token: tokenFor("7") }).welcomed();
    const back = await explained(nodes[0], { user: "7", room: "room:a", event: after });
    assert.deepEqual(back.sessions.map(({ outcome }) => outcome), ["connected_later", "ended_before"]);
    assert.equal(back.verdict, "not_connected");
    // A stream and a plain WebSocket that hang up.
    const sse = await s.sse(nodes[0], { token: tokenFor("8"), rooms: ["room:a"] }).answered();
    const ws = await (await s.ws(nodes[0], { token: tokenFor("9") }).welcomed()).join("room:a");
    const got = await send(nodes[1], "room:a");
    await Promise.all([sse.event("news"), ws.event("news")]);
    [sse, ws].forEach((client) => client.close());
    for (const user of ["8", "9"]) {
      const closed = await verdict(nodes[1], { user, room: "room:a" }, "not_connected");
      assert.equal(closed.sessions[0].ended.reason, "transport_close");
      await verdict(nodes[1], { user, room: "room:a", event: got }, "delivered");
    }
  });

  scenario("replayed to a client that came back, on another node too, and lost to a gap", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    const proxy = await s.proxy(nodes[0]);
    const begun = Date.now();
    const client = await (await s.io(proxy, { token: tokenFor("7"), ...WEBSOCKET }).connected()).join("room:a");
    const first = await send(nodes[0], "room:a");
    await client.event("news");
    proxy.up = false;
    proxy.cut();
    await client.disconnected();
    const away = await verdict(nodes[1], { user: "7", room: "room:a" }, "not_connected");
    assert.ok(Date.parse(away.sessions[0].ended.resumable_until) > Date.now(), "it may come back");
    const missed = await send(nodes[0], "room:a", { event: "missed" });
    await verdict(nodes[1], { user: "7", room: "room:a", event: missed }, "not_connected");
    proxy.target = nodes[1];
    proxy.up = true;
    assert.equal(await reconnected(client), true);
    await client.event("missed");
    const replayed = await verdict(nodes[0], { user: "7", room: "room:a", event: missed }, "delivered");
    assert.match(replayed.message, /it came while the client was away, and was replayed/);
    near(replayed.at, begun);
    const both = await verdict(nodes[0], { user: "7", room: "room:a", event: first }, "delivered");
    assert.deepEqual(both.outcomes, { delivered: 2 }, "by the first connection, which the second one named");
    assert.ok(both.sessions.some(({ message }) => message.startsWith("the client had it before it came back")), JSON.stringify(both));
    // A stream and a room of /ws that name where they were.
    const sse = await s.sse(nodes[0], { token: tokenFor("8"), rooms: ["room:a"], headers: { "last-event-id": first } }).answered();
    const ws = await s.ws(nodes[0], { token: tokenFor("9") }).welcomed();
    assert.equal((await ws.ask({ type: "join", room: "room:a", since: first })).recovered, true);
    await Promise.all([sse.event("missed"), ws.event("missed")]);
    for (const user of ["8", "9"]) {
      const past = await verdict(nodes[1], { user, room: "room:a", event: missed }, "delivered");
      assert.match(past.message, /was replayed/);
    }
    // What they name is of another log: they get a gap.
    const other = `${first.startsWith("1") ? "2" : "1"}${first.slice(1)}`;
    const lostSse = await s.sse(nodes[0], { token: tokenFor("10"), rooms: ["room:a"], headers: { "last-event-id": other } }).answered();
    const lostWs = await s.ws(nodes[0], { token: tokenFor("11") }).welcomed();
    assert.equal((await lostWs.ask({ type: "join", room: "room:a", since: other })).recovered, false);
    await lostSse.event("gap");
    const lostIo = await (await s.io(nodes[0], { auth: { token: tokenFor("12"), pid: "A".repeat(20), offset: first }, ...WEBSOCKET }).connected()).join("room:a");
    assert.equal(lostIo.socket.recovered, false);
    for (const [user, code] of [["10", "foreign_epoch"], ["11", "foreign_epoch"], ["12", "unknown_session"]]) {
      const lost = await verdict(nodes[1], { user, room: "room:a", event: missed }, "gap");
      assert.match(lost.message, new RegExp(`the client was notified that it may have missed it: ${code}, `));
      near(lost.at, begun);
    }
  });

  scenario("waiting in the outbox, and dropped with it", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2, { limits: { outbox_bytes: "300KB", events_per_second: 1000 } });
    const begun = Date.now();
    const slow = await (await s.ws(nodes[0], { token: tokenFor("7") }).welcomed()).join("room:a");
    slow.socket.pause();
    const data = "x".repeat(100_000);
    const offsets = [];
    // The next event, once it is known what became of it: its node may not have come to it when it is published.
    const next = async () => {
      const event = await published(nodes[1], { room: "room:a", event: "big", data });
      offsets.push(event);
      const isOver = ({ verdict, message }) => ["delivered", "dropped"].includes(verdict) || /it waits in the outbox/.test(message);
      return until(async () => {
        const answer = await explained(nodes[1], { user: "7", room: "room:a", event });
        return isOver(answer) && answer;
      }, "what became of the event");
    };
    const waits = (answer) => answer.verdict === "waiting" && answer.sessions[0].outbox_bytes > 0;
    // Still there at a second look: it was not only on its way to the network.
    const waiting = await until(async () => {
      const answer = await next();
      return waits(answer) && waits(await explained(nodes[1], { user: "7", room: "room:a", event: offsets.at(-1) })) && answer;
    }, "one waits in the outbox");
    assert.match(waiting.message, /it waits in the outbox/);
    await verdict(nodes[1], { user: "7", room: "room:a", event: offsets[0] }, "delivered");
    // A volatile event is for those who can take it now.
    await published(nodes[1], { room: "room:a", event: "cursor", data: 1, volatile: true });
    const skipped = await until(async () => (await explained(nodes[1], { user: "7", room: "room:a" })).sessions[0].volatile_skipped, "a volatile event was skipped");
    assert.equal(skipped.events, 1);
    near(skipped.last, begun);
    const dropped = await until(async () => {
      const answer = await next();
      return answer.verdict === "dropped" && answer;
    }, "closed as a slow consumer");
    assert.match(dropped.message, /^user 7: it waited for the client when the connection ended: slow_consumer\. More unsent bytes than `outbox_bytes`/);
    near(dropped.at, begun);
    await verdict(nodes[1], { user: "7", room: "room:a", event: offsets[0] }, "delivered");
    slow.socket.resume();
  });

  scenario("an event of another room or namespace, none, and one that is no longer kept; wrong questions", async (s) => {
    const store = await s.redis();
    const more = { socketio: { namespaces: ["/", "/chat"] }, recovery: { window_bytes: "40KB" } };
    const nodes = await nodesOn(s, store, 2, more);
    await (await s.io(nodes[0], { token: tokenFor("7"), ...WEBSOCKET }).connected()).join("room:a");
    const ask = (query) => explained(nodes[1], { user: "7", room: "room:a", ...query });
    const judged = async (event, wanted) => verdict(nodes[1], { user: "7", room: "room:a", event: await event }, wanted);
    const elsewhere = await judged(send(nodes[0], "room:b"), "other_room");
    assert.deepEqual([elsewhere.message, elsewhere.event.rooms], ["the event did not go to this room: it went to room:b", ["room:b"]]);
    const chat = await judged(send(nodes[0], "room:a", { namespace: "/chat" }), "other_namespace");
    assert.equal(chat.message, "the event is of namespace /chat, not of /");
    const inChat = await ask({ namespace: "/chat" });
    assert.deepEqual([inChat.verdict, inChat.message], ["not_connected", "user 7: not connected in namespace /chat; connected in /"]);
    assert.equal((await ask({ namespace: "/admin" })).verdict, "unknown_namespace");
    const event = await send(nodes[0], "room:a");
    await verdict(nodes[1], { user: "7", room: "room:a", event }, "delivered");
    const [, epoch, ms, line] = /^(.+)-(.+)-\d+(_\d+)?$/.exec(eventOf(event));
    const named = (epoch, ms, seq) => `${epoch}-${ms}-${seq}${line ?? ""}`;
    const none = await ask({ event: named(epoch, ms, 77) });
    assert.ok(["unknown_event", "event_ahead"].includes(none.verdict), JSON.stringify(none));
    assert.equal((await ask({ event: named(epoch, Number(ms) + 60_000, 0) })).verdict, "event_ahead");
    assert.equal((await ask({ event: named(epoch === "1" ? "2" : "1", ms, 0) })).verdict, "other_log");
    // Too much for the window, and trimmed from the log: where it went is not known, and what is known holds if it went there.
    for (let n = 0; n < 8; n += 1) await published(nodes[0], { room: "room:a", event: "big", data: "x".repeat(10_000) });
    assert.equal((await ask({ event })).event.status, "kept", "the log has it");
    await store.cli("XTRIM", streamOf("room:a"), "MAXLEN", "3");
    const gone = await until(async () => {
      const answer = await ask({ event });
      return answer.event.status === "gone" && answer;
    }, "the event is no longer kept");
    assert.match(gone.message, /^the event is no longer kept \(recovery\.window, recovery\.window_bytes\), .* if it went to room:a: written to the client's connection/);
    assert.equal(gone.verdict, "delivered");
    for (const [query, status, code] of [
      ["", 400, "bad_query"], ["user=7", 400, "bad_query"], ["room=a", 400, "bad_query"],
      ["user=7&room=a%00", 400, "bad_query"], [`user=7&room=${"a".repeat(201)}`, 400, "bad_query"], [`user=${"7".repeat(201)}&room=a`, 400, "bad_query"],
      ["user=7&room=a&event=x", 400, "bad_query"], ["user=7&room=a&events=x", 400, "bad_query"],
    ]) {
      assertError(await nodes[0].get(`/explain?${query}`, bearer), status, code);
    }
    assertError(await nodes[0].get("/explain?user=7&room=a"), 401);
    assertError(await command(nodes[0], "/explain?user=7&room=a", {}), 405);
    // A node that hangs makes the answer say so, in time.
    nodes[1].signal("SIGSTOP");
    try {
      const took = stopwatch();
      const half = await answered(nodes[0], { user: "7", room: "room:a" });
      assert.ok(took() < SOON, `the others are not waited for long: ${took()} ms`);
      assert.deepEqual([half.nodes_pending, half.nodes.find(({ status }) => status)?.status], [1, "unreachable"]);
      assert.match(half.message, /\(1 nodes did not answer\)$/);
    } finally {
      nodes[1].signal("SIGCONT");
    }
  });

  scenario("while Redis hangs, the answer says in time that other nodes are silent", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    await until(async () => (await explained(nodes[0], { user: "7", room: "room:a" })).nodes.length === 2, "two nodes");
    store.signal("SIGSTOP");
    try {
      const took = stopwatch();
      const half = await answered(nodes[0], { user: "7", room: "room:a" });
      assert.ok(took() < SOON, `${took()} ms`);
      assert.deepEqual([half.nodes_pending, half.nodes.find(({ status }) => status)?.status], [1, "unreachable"]);
    } finally {
      store.signal("SIGCONT");
    }
  });

  scenario("roomcast explain, and the embedded log", async (s) => {
    const node = await s.node();
    const client = await (await s.io(node, { token: tokenFor("7"), ...WEBSOCKET }).connected()).join("room:a");
    const event = await send(node, "room:a");
    await client.event("news");
    const tell = async (...args) => {
      const { code, stdout, output } = await roomcast(["explain", "--user", "7", "--url", node.url, "--key", KEY, ...args]);
      assert.equal(code, 0, output);
      return stdout;
    };
    await verdict(node, { user: "7", room: "room:a", event }, "delivered");
    const words = await tell("--room", "room:a", "--event", event);
    assert.match(words, /^delivered: user 7: written to the client's connection \(at \d{4}-.*Z\)\n/);
    assert.match(words, /^rule +\[\[rooms\]\] 2: match = "room:<name>", join = "allow"$/m);
    assert.match(words, /^event +news to room:a \(at /m);
    assert.match(words, new RegExp(`^${client.socket.id} .* delivered `, "m"));
    assert.equal(JSON.parse(await tell("--room", "closed:a", "--json")).verdict, "not_in_room");
    assert.match(await tell("--room", "room:a", "--namespace", "/nope"), /^unknown_namespace: no client can be in namespace \/nope/);
    const bad = await roomcast(["explain", "--user", "7", "--room", "a", "--event", "x", "--url", node.url, "--key", KEY]);
    assert.equal(bad.code, 1);
    assert.match(bad.output, /`event` takes an offset/);
    client.close();
    await verdict(node, { user: "7", room: "room:a" }, "not_connected");
    await verdict(node, { user: "7", room: "room:a", event }, "delivered");
  });

  scenario("not let in: the refusal and its time, marked where the token proves nothing", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2, { limits: { user_connections: 1 } });
    const begun = Date.now();
    const expired = tokenFor("7", { exp: Math.floor(begun / 1000) - 3_600 });
    const refused = s.io(nodes[0], { token: expired, ...WEBSOCKET });
    await refused.refused();
    const away = await verdict(nodes[1], { user: "7", room: "room:a" }, "not_connected");
    assert.equal(away.message, "user 7: not connected: a client whose token names this user, be it theirs or not, was not let in, token_expired");
    near(away.at, begun);
    assert.deepEqual(away.turned_away.map(({ code, claimed }) => [code, claimed]), [["token_expired", true]]);
    await s.ws(nodes[0], { token: tokenFor("8") }).welcomed();
    const second = s.ws(nodes[0], { token: tokenFor("8") });
    await second.ended();
    const full = await until(async () => {
      const answer = await explained(nodes[1], { user: "8", room: "user:8" });
      return answer.turned_away.length > 0 && answer;
    }, "the one that was turned away");
    assert.deepEqual([full.verdict, full.turned_away.map(({ code, claimed }) => [code, claimed])], ["in_room", [["too_many_connections", false]]]);
    // Forged ones push out nothing that is known of others.
    for (let n = 0; n < 50; n += 1) assert.equal((await nodes[0].get(`/sse?room=room:a&token=${expired}`)).status, 401);
    assert.equal((await explained(nodes[1], { user: "7", room: "room:a" })).turned_away.length <= 8, true);
    assert.equal((await explained(nodes[1], { user: "8", room: "user:8" })).turned_away.length, 1);
  });

  scenario("who comes and goes all the time pushes out nothing that is known of others", async (s) => {
    const node = await s.node({ explain: { bytes: "1MB" }, limits: { user_connects_per_second: 0 } });
    const comeAndGo = async (user) => {
      const client = await s.ws(node, { token: tokenFor(user) }).welcomed();
      client.close();
    };
    await comeAndGo("7");
    await verdict(node, { user: "7", room: "room:a" }, "not_connected");
    for (let n = 0; n < 30; n += 1) await Promise.all(Array.from({ length: 100 }, () => comeAndGo("8")));
    await until(async () => (await node.connections("ws")) === 0, "all are gone");
    const busy = await explained(node, { user: "8", room: "room:a" });
    const quiet = await explained(node, { user: "7", room: "room:a" });
    assert.equal(quiet.outcomes.ended, 1, JSON.stringify(quiet));
    assert.ok(busy.outcomes.ended > 0 && busy.sees_back_to > quiet.sees_back_to, JSON.stringify([busy.sees_back_to, quiet.sees_back_to]));
  });

  scenario("the past is bounded by explain.bytes and explain.window, and the answer says how far back it sees", async (s) => {
    const small = await s.node({ explain: { bytes: "40KB" } });
    const none = await s.node({ explain: { bytes: "0B" } });
    for (const node of [small, none]) {
      const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
      client.close();
    }
    const first = await verdict(small, { user: "7", room: "room:a" }, "not_connected");
    assert.equal(first.sessions[0].ended.reason, "transport_close");
    const off = await until(async () => {
      const answer = await explained(none, { user: "7", room: "room:a" });
      return answer.sessions.length === 0 && answer;
    }, "nothing is remembered");
    assert.match(off.message, /no session of this user has ended since/);
    // Others come and go until it is forgotten.
    const others = s.repeat(async () => {
      const clients = await Promise.all(Array.from({ length: 10 }, () => s.ws(small, { token: tokenFor(`u${Math.random()}`) }).welcomed()));
      clients.forEach((client) => client.close());
    });
    const forgotten = await until(async () => {
      const answer = await explained(small, { user: "7", room: "room:a" });
      return answer.sessions.length === 0 && answer;
    }, "it is forgotten");
    await others.stop();
    assert.ok(Date.parse(forgotten.sees_back_to) >= Date.parse(first.sessions[0].ended.at), JSON.stringify([forgotten, first]));
  });
});
