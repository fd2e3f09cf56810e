// Numbers in names of rooms, users and events are formatted as in JavaScript, whatever language sent them.
import assert from "node:assert/strict";
import Redis from "ioredis";
import { startBackend } from "../harness/backend.mjs";
import { joinedSocket } from "../harness/engine.mjs";
import { assertError, command, publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { now, sign, tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };
const SPELLINGS = ["42", "42.0", "4.2e1", "420e-1"];

suite("numbers in names", () => {
  scenario("rooms from a client's arguments: doubles of Java, Python and Dart", async ({ node, keep }) => {
    const one = await node();
    for (const [spelling, name] of [...SPELLINGS.map((spelling) => [spelling, "42"]), ["-0", "0"], ["-0.0", "0"], ["1.50", "1.5"], ["1e21", "1e+21"]]) {
      const socket = keep(await joinedSocket(one, token));
      socket.sendText(`420["join",${spelling}]`);
      await socket.text((text) => text === '430[{"ok":true}]');
      await published(one, { room: `room:${name}`, event: "hello", data: spelling });
      await socket.text((text) => text.startsWith(`42["hello",${JSON.stringify(spelling)}`));
    }
  });

  scenario("rooms with ids of 64 bits are distinct, though JavaScript would round them to one", async ({ node, keep }) => {
    const one = await node();
    const socket = keep(await joinedSocket(one, token));
    socket.sendText('420["join",9007199254740993]');
    await socket.text((text) => text.startsWith("430"));
    await published(one, { room: "room:9007199254740992", event: "other" });
    await published(one, { room: "room:9007199254740993", event: "own" });
    await socket.text((text) => text.startsWith('42["own"'));
    assert.ok(!socket.texts.some((text) => text.includes("other")));
  });

  scenario("users and claims", async ({ node, ws }) => {
    const rooms = [{ match: "user:{user}", join: "auto" }, { match: "org:{claims.org}", join: "auto" }];
    const one = await node({ rooms });
    for (const spelling of SPELLINGS) {
      const claims = `{"sub":${spelling},"org":${spelling},"rooms":["r:1",${spelling}],"exp":${now() + 600}}`;
      const client = ws(one, { token: sign(claims) });
      assert.equal((await client.message("welcome")).user, 42);
      for (const room of ["user:42", "org:42", "42"]) {
        await published(one, { room, event: `to ${room}` });
        await client.event(`to ${room}`);
      }
      assert.deepEqual((await command(one, "/disconnect", { user: 42 })).json(), { sessions: 1 });
      await client.ended();
    }
  });

  scenario("numbers inside a longer text, and names of events", async ({ node, keep }) => {
    const one = await node({ on: [{ event: "42", ack: ["n {0}"] }, { event: "tell", reply: { event: "e{0}", args: ["{0}"] } }] });
    const socket = keep(await joinedSocket(one, token));
    socket.sendText('427[42.0,4.2e1]');
    await socket.text((text) => text === '437["n 42"]');
    socket.sendText('42["tell",42.0]');
    assert.match(await socket.text((text) => text.startsWith('42["e42"')), /^42\["e42",42\.0,/, "as a whole argument it keeps its bytes");
  });

  scenario("publishes, answers of the backend and stream entries name rooms by strings only; commands take numbers too", async (s) => {
    const backend = s.serve(await startBackend());
    const store = await s.redis();
    const on = [{ event: "ask", forward: true }];
    const one = await s.node({ ...backend.config(), redis: { url: store.url }, on });
    backend.answer = () => (response) => response.end('{"ack":[1],"join":["42"],"emit":[{"room":"42","event":"from backend"}]}');
    const client = await s.io(one, { token, ...WEBSOCKET }).connected();
    assert.deepEqual(await client.ask("ask"), [1]);
    await client.event("from backend");
    assertError(await publish(one, '{"room":42.0,"event":"from publish"}'), 400, "bad_field");
    const redis = new Redis(store.url);
    await redis.xadd("roomcast:events", "*", "rooms", "[42.0]", "event", "number");
    await redis.xadd("roomcast:events", "*", "rooms", '["42"]', "event", "from stream");
    await client.event("from stream");
    await one.metricIs('roomcast_drops_total{reason="malformed"}', 1);
    await redis.quit();
    assert.deepEqual((await command(one, "/leave", '{"user":7.0,"room":42.0}')).json(), { sessions: 1 });
  });
});
