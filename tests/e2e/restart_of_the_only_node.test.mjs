// The only node is killed and started again: its clients come back to a node that still reads its history.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { PATIENT } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";

const FILL = "for i = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'room', 'room:other', 'event', 'e', 'data', ARGV[2]) end return 1";

suite("Restart of the only node", () => {
  scenario("clients are recovered on every protocol, however long the history takes to read", async ({ node, redis, io, ws, sse }) => {
    const server = await redis();
    const port = await freePort();
    const settings = { redis: { url: server.url, timeout: PATIENT }, recovery: { window: "10m", window_bytes: "500MB" } };
    const one = await node(settings, { port });
    const client = await (await io(one, { token: tokenFor("7") }).connected()).join("room:a");
    await published(one, { room: "room:a", event: "before", data: 1 });
    await client.event("before");
    await client.join("room:b");
    const since = await published(one, { room: "room:a", event: "seen", data: 1 });
    const missed = await published(one, { room: "room:a", event: "missed", data: 1 });
    assert.notEqual(since, missed);
    await client.event("missed");
    one.stopping = true;
    await one.stop("SIGKILL");
    for (let round = 0; round < 5; round += 1) await server.cli("EVAL", FILL, "1", "roomcast:events", "4000", `"${"x".repeat(200)}"`);
    const again = await node(settings, { port, ready: false });
    const [plain, stream] = [
      ws(again, { token: tokenFor("8") }),
      sse(again, { token: tokenFor("9"), rooms: ["room:a"], headers: { "last-event-id": since } }),
    ];
    const joined = await plain.ask({ type: "join", room: "room:a", since });
    assert.equal(joined.recovered, true, JSON.stringify(joined));
    await plain.event("missed");
    await (await stream.answered()).event("missed");
    assert.deepEqual(stream.eventsOf("gap"), []);
    await until(() => client.connects === 2, "the client's return", 30_000);
    assert.equal(client.socket.recovered, true);
    await until(() => again.answers("/health"), "/health answering 200", 30_000);
    await published(again, { room: "room:b", event: "after", data: 2 });
    await client.event("after");
  });
});
