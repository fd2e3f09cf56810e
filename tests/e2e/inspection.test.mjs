// What operators see of a running cluster, and the drain of one node: GET /cluster, /rooms, /sessions, POST /drain, and the commands for them.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until, within } from "../harness/deadline.mjs";
import { BINARY, Daemon, roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { assertError, command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const WEBSOCKET = { transports: ["websocket"] };
const bearer = { authorization: `Bearer ${KEY}` };

async function seen(node, path) {
  const answer = await node.get(path, bearer);
  assert.equal(answer.status, 200, answer.text);
  return answer.json();
}
const cluster = async (node) => (await seen(node, "/cluster")).nodes;

/** What GET /cluster shows once so many nodes are listed and all of them answered in time. */
const whole = (node, count, is = (status) => status !== "unreachable") => {
  let nodes;
  return until(async () => {
    nodes = await cluster(node);
    return nodes.length === count && nodes.every(({ status }) => is(status)) && nodes;
  }, () => `${count} nodes; got ${JSON.stringify(nodes)}`);
};

/** A whole list, page by page; each of at most `limit` entries. */
async function listed(node, name, query, limit) {
  const pages = [];
  for (let cursor = ""; cursor !== null; cursor = pages.at(-1).cursor) {
    // A node that does not answer in time is left out.
    pages.push(await until(async () => {
      const page = await seen(node, `/${name}?${new URLSearchParams({ ...query, limit, cursor })}`);
      return page.nodes_pending === undefined && page;
    }, "a page of all nodes"));
    assert.ok(pages.at(-1)[name].length <= limit);
  }
  assert.ok(pages.every((page, n) => page[name].length === limit || n === pages.length - 1), "only the last page is short");
  return pages.flatMap((page) => page[name]);
}

/** The output of a command for operators. */
async function operated(node, ...args) {
  const { code, stdout, output } = await roomcast([...args, "--url", node.url, "--key", KEY]);
  assert.equal(code, 0, output);
  return stdout;
}

suite("Inspection", () => {
  scenario("GET /cluster shows every node from any node", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    await s.ws(nodes[0], { token: tokenFor("7") }).welcomed();
    await Promise.all(["8", "9"].map((user) => s.io(nodes[1], { token: tokenFor(user), ...WEBSOCKET }).connected()));
    const both = await whole(nodes[0], 2);
    assert.deepEqual(both.map(({ node }) => node), both.map(({ node }) => node).toSorted());
    assert.deepEqual(both.map((node) => node.connections).toSorted(), [1, 2]);
    for (const node of both) {
      assert.equal(node.status, "ok");
      assert.match(node.version, /^\d+\.\d+\.\d+/);
      assert.equal(node.sessions, node.connections);
      assert.equal(node.rooms, node.connections, "the room of each user");
      assert.ok(node.uptime_seconds >= 0 && node.lag_ms >= 0 && node.memory_bytes <= node.memory_limit_bytes, JSON.stringify(node));
    }
    assert.deepEqual(both.filter((node) => node.this).map((node) => node.connections), [1]);
    const fromOther = await whole(nodes[1], 2);
    assert.deepEqual(fromOther.map(({ node }) => node), both.map(({ node }) => node));
    assert.deepEqual(fromOther.filter((node) => node.this).map((node) => node.connections), [2]);
    await until(async () => {
      const table = await operated(nodes[0], "nodes");
      return both.every(({ node }) => new RegExp(`^${node}  ok `, "m").test(table));
    }, "both in the table");
    const json = JSON.parse(await operated(nodes[0], "nodes", "--json"));
    assert.deepEqual(json.nodes.map(({ node }) => node), both.map(({ node }) => node));
    // Rates, of nodes that were seen before.
    const publishing = s.repeat(() => command(nodes[0], "/publish", { room: "user:8", event: "n", data: 1 }));
    const looks = (await operated(nodes[1], "top", "--json", "--every", "3s", "--count", "2")).trim().split("\n").map(JSON.parse);
    assert.deepEqual(looks.map(({ nodes }) => nodes.map(({ node }) => node)), [both, both].map((nodes) => nodes.map(({ node }) => node)));
    const rate = looks[1].nodes.reduce((sum, node) => sum + node.events_per_second, 0);
    const deliveries = looks[1].nodes.reduce((sum, node) => sum + node.deliveries_per_second, 0);
    assert.ok(rate > 0 && deliveries > 0, JSON.stringify(looks));
    assert.match(await operated(nodes[1], "top", "--every", "3s", "--count", "1"), /^all +2 nodes +3 +3 +[1-9]/m);
    await publishing.stop();
    // A node that hangs is listed, and the others are not waited for long.
    nodes[1].signal("SIGSTOP");
    try {
      const hung = (await cluster(nodes[0])).find((node) => !node.this);
      assert.deepEqual([hung.status, hung.connections], ["unreachable", undefined]);
    } finally {
      nodes[1].signal("SIGCONT");
    }
    await whole(nodes[0], 2, (status) => status === "ok");
  });

  scenario("rooms and sessions of both nodes are listed page by page, and one is shown in detail", async (s) => {
    const store = await s.redis();
    const nodes = await nodesOn(s, store, 2);
    const users = Array.from({ length: 12 }, (_, n) => `u${n}`);
    const clients = await Promise.all(
      users.map(async (user, n) => {
        const node = nodes[n % 2];
        const client = n % 3 === 0 ? await s.ws(node, { token: tokenFor(user) }).welcomed() : await s.io(node, { token: tokenFor(user), ...WEBSOCKET }).connected();
        return client.join("room:all", `room:${n % 4}`);
      }),
    );
    await whole(nodes[0], 2);
    for (const node of nodes) {
      const rooms = await listed(node, "rooms", { prefix: "room:" }, 2);
      assert.deepEqual(rooms, [..."0123"].map((n) => ({ room: `room:${n}`, namespace: "/", connections: 3 })).concat({ room: "room:all", namespace: "/", connections: 12 }));
      assert.equal((await listed(node, "rooms", {}, 5)).length, 17);
      assert.deepEqual(await listed(node, "rooms", { prefix: "none" }, 5), []);
      const sessions = await listed(node, "sessions", {}, 5);
      assert.deepEqual(sessions.map(({ user }) => user).toSorted(), users.toSorted());
      assert.equal(new Set(sessions.map(({ session }) => session)).size, 12);
      const inRoom = await listed(node, "sessions", { room: "room:1" }, 2);
      assert.deepEqual(inRoom.map(({ user }) => user).toSorted(), ["u1", "u5", "u9"]);
      assert.deepEqual((await listed(node, "sessions", { user: "u5" }, 2)).map(({ user }) => user), ["u5"]);
      assert.deepEqual(await listed(node, "sessions", { user: "u5", room: "room:2" }, 2), []);
    }
    // From the other node; what it got, sent and was refused last.
    const asked = clients[1];
    const before = Date.now();
    await published(nodes[0], { room: "user:u1", event: "seen", data: "a secret payload" });
    await asked.event("seen");
    const refused = await asked.ask("sneak", "7");
    const { text } = await nodes[0].get(`/sessions/${asked.socket.id}`, bearer);
    const one = JSON.parse(text);
    const list = await listed(nodes[0], "sessions", { user: "u1" }, 1);
    // It is counted back from now, by another clock.
    assert.ok(Math.abs(Date.parse(list[0].last_event_in) - Date.parse(one.last_event_in)) <= 1_000, JSON.stringify([list, one]));
    assert.deepEqual(list, [{ ...one, last_event_in: list[0].last_event_in }]);
    const { since, last_event_in, last_event_out, last_refusal, node, ...rest } = one;
    assert.deepEqual(rest, {
      session: asked.socket.id, user: "u1", namespace: "/", transport: "websocket", protocol: "socketio", address: "127.0.0.1",
      rooms: ["user:u1", "room:all", "room:1"], room_count: 3, outbox_bytes: 0,
    });
    assert.equal(node, (await whole(nodes[1], 2)).find((entry) => entry.this).node);
    assert.equal(last_refusal.code, refused[0].error.code);
    assert.ok(Date.parse(since) <= before + 5 && Date.parse(since) > before - 60_000, since);
    for (const time of [last_event_in, last_event_out, last_refusal.at]) assert.ok(Math.abs(Date.parse(time) - Date.now()) < 60_000, text);
    assert.ok(Date.parse(last_event_out) >= before - 5, `${last_event_out}: no earlier than the event, but that clocks are cut to milliseconds`);
    assert.ok(!text.includes("secret") && !text.includes(asked.socket._pid), text);
    assert.match(await operated(nodes[0], "rooms", "room:", "--limit", "1"), /^ROOM .*\nroom:0 +\/ +3\n\nThere are more: --cursor \S+\n$/);
    assert.match(await operated(nodes[0], "sessions", "--user", "u1"), new RegExp(`^${asked.socket.id}  u1 `, "m"));
    assert.match(await operated(nodes[0], "sessions", asked.socket.id), /^rooms +user:u1 room:all room:1$/m);
    asked.close();
    await until(async () => (await nodes[0].get(`/sessions/${asked.socket.id}`, bearer)).status === 404, "the session is gone");
    // A node that hangs makes lists say so.
    nodes[1].signal("SIGSTOP");
    try {
      const half = await seen(nodes[0], "/sessions?limit=1000");
      assert.deepEqual([half.sessions.length, half.nodes_pending, half.cursor], [6, 1, null]);
      assert.equal((await seen(nodes[0], "/rooms?prefix=room:all")).nodes_pending, 1);
    } finally {
      nodes[1].signal("SIGCONT");
    }
  });

  scenario("POST /drain sends the clients of one node to the other, and the process goes on", async (s) => {
    const store = await s.redis();
    const [drained, other] = await nodesOn(s, store, 2);
    const balancer = await s.proxy(drained);
    const options = [["websocket"], ["polling"], ["polling", "websocket"]];
    const clients = await Promise.all(options.map((transports) => s.io(balancer, { token: tokenFor("7"), transports }).connected()));
    const ws = await s.ws(balancer, { token: tokenFor("7") }).welcomed();
    const stream = await s.sse(balancer, { token: tokenFor("7"), rooms: ["room:a"] }).answered();
    balancer.target = other;
    const answer = (await command(drained, "/drain", { over: "700ms" })).json();
    assert.deepEqual([answer.begun, answer.drain.connections, answer.drain.over_ms, answer.drain.done], [true, 5, 700, false]);
    assert.equal((await drained.get("/health")).json().status, "draining");
    // A second one does not begin anew.
    const again = (await command(drained, "/drain", { over: "1h" })).json();
    assert.deepEqual([again.begun, again.drain.over_ms, again.node], [false, 700, answer.node]);
    // The progress is seen from any node.
    const progress = [];
    await until(async () => {
      const { drain, status } = (await whole(other, 2)).find(({ node }) => node === answer.node);
      assert.equal(status, "draining");
      progress.push(drain.left);
      return drain.done;
    }, () => `the end of the drain; left: ${progress}`);
    assert.equal(progress.at(-1), 0);
    assert.deepEqual(progress, progress.toSorted((a, b) => b - a));
    for (const client of clients) assert.match(await client.disconnected(), /^transport (close|error)$/);
    assert.deepEqual((await ws.ended()).code, 1001);
    await until(() => stream.ended, "the stream's end");
    await until(() => clients.every((client) => client.connects === 2 && client.socket.connected), "every client connected again");
    // New clients are refused, and what operators need still answers.
    assert.equal((await s.ws(drained, { token: tokenFor("8") }).ended()).status, 503);
    assert.equal((await s.sse(drained, { token: tokenFor("8") }).answered()).status, 503);
    assertError(await drained.get("/socket.io/?EIO=4&transport=polling"), 503, "draining");
    assert.equal((await drained.get("/health/live")).status, 200);
    assert.equal((await command(drained, "/publish", { room: "user:7", event: "through the drained node", data: 1 })).status, 200);
    await clients[0].event("through the drained node");
    assert.equal(drained.exit, undefined);
    assert.match(await operated(drained, "drain", "--wait"), /is drained; it can be stopped/);
    await until(async () => new RegExp(`^${answer.node}  drained `, "m").test(await operated(other, "nodes")), "a drained node in the table");
    assert.equal((await drained.stop()).code, 0);
  });

  scenario("with the embedded log, one node is the cluster", async (s) => {
    const node = await s.node();
    const [alone, ...others] = await cluster(node);
    assert.deepEqual([alone.this, alone.status, alone.lag_ms, others], [true, "ok", 0, []]);
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    const { sessions } = await seen(node, "/sessions");
    assert.deepEqual(sessions.map(({ node, protocol, rooms }) => [node, protocol, rooms]), [[alone.node, "ws", ["user:7"]]]);
    assert.deepEqual((await seen(node, "/rooms")).rooms, [{ room: "user:7", namespace: "/", connections: 1 }]);
    assert.match(await operated(node, "drain", "--over", "0s", "--wait"), new RegExp(`node ${alone.node} closes its 1 connections over 0s`));
    assert.equal((await client.ended()).code, 1001);
  });

  scenario("roomcast top ends when nobody reads it, and goes on when its node comes back", async (s) => {
    const node = await s.node();
    const args = ["top", "--every", "100ms", "--json", "--url", node.url, "--key", KEY];
    const piped = new Daemon(["-c", '"$0" "$@" | head -n 1', BINARY, ...args], {}, "sh");
    s.keep({ close: () => piped.stop("SIGKILL") });
    await within(piped.exited, "the end of roomcast top | head -n 1");
    const top = new Daemon(args);
    s.keep({ close: () => top.stop("SIGKILL") });
    await until(() => top.stdout.includes('"status":"ok"'), "a table");
    await node.stop();
    await until(() => top.output.includes("Connection refused"), "top says that the node is gone");
    const before = top.stdout.length;
    await s.node({}, { port: node.port });
    await until(() => top.stdout.length > before, "top shows the node again");
  });

  scenario("a node that has found no Redis since its start answers for itself", async (s) => {
    const node = await s.node({ redis: { url: `redis://127.0.0.1:${await freePort()}/0`, timeout: "500ms" } }, { ready: false });
    const [alone, ...others] = await cluster(node);
    assert.deepEqual([alone.status, others], ["degraded", []]);
    // Two clocks, and whole seconds.
    assert.ok(alone.lag_ms <= (alone.uptime_seconds + 20) * 1_000, `${alone.lag_ms} ms behind, ${alone.uptime_seconds} s after the start`);
    assert.match(await operated(node, "top", "--count", "1", "--every", "100ms"), /degraded/);
  });

  scenario("roomcast sessions shows a session in more rooms than fit into a megabyte", async (s) => {
    const node = await s.node({ limits: { rooms_per_session: 7_000 } });
    const { session } = await s.ws(node, { token: tokenFor("7") }).message("welcome");
    const rooms = Array.from({ length: 6_400 }, (_, n) => `${n}:`.padEnd(190, "x"));
    for (let n = 0; n < rooms.length; n += 256) {
      const answer = await command(node, "/join", { session, rooms: rooms.slice(n, n + 256) });
      assert.equal(answer.status, 200, answer.text);
    }
    const shown = JSON.parse(await operated(node, "sessions", session, "--json"));
    assert.equal(shown.rooms.length, rooms.length + 1);
  });

  scenario("a key is needed, and only the paths' own methods are taken", async (s) => {
    const node = await s.node();
    for (const path of ["/cluster", "/rooms", "/sessions", "/sessions/AAAAAAAAAAAAAAAAAAAA"]) {
      assertError(await node.get(path), 401, "unauthorized");
      assertError(await node.get(path, { authorization: "Bearer wrong" }), 401, "unauthorized");
      const wrong = await command(node, path, {});
      assertError(wrong, 405, "method_not_allowed");
      assert.equal(wrong.headers.allow, "GET, HEAD");
    }
    assertError(await command(node, "/drain", {}, { key: null }), 401, "unauthorized");
    assertError(await node.get("/drain", bearer), 405, "method_not_allowed");
    assertError(await command(node, "/drain", { over: "soon" }), 400, "bad_field");
    assertError(await command(node, "/drain", { all: true }), 400, "bad_json");
    for (const path of ["/rooms?limit=0", "/rooms?limit=1001", "/rooms?prefx=a", "/rooms?cursor=x", "/sessions?limit=x", "/sessions?cursor=WyJhIiwiLyJd", "/sessions?rooms=a"]) {
      assertError(await node.get(path, bearer), 400, "bad_query");
    }
    for (const id of ["x", "AAAAAAAAAAAAAAAAAAAA"]) assertError(await node.get(`/sessions/${id}`, bearer), 404, "unknown_session");
    assert.deepEqual([await seen(node, "/rooms"), await seen(node, "/sessions")], [{ rooms: [], cursor: null }, { sessions: [], cursor: null }]);
    assert.equal((await cluster(node))[0].drain, undefined, "nothing was begun");
    const { code, output } = await roomcast(["nodes", "--url", node.url, "--key", "wrong"]);
    assert.equal(code, 1);
    assert.match(output, /refused \(401 Unauthorized\)/);
  });
});
