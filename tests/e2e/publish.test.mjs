// POST /publish: which events it accepts, which clients they reach, and how it refuses others.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { request } from "../harness/http.mjs";
import { assertError, publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const good = { room: "room:a", event: "e", data: 1 };

suite("POST /publish", () => {
  scenario("an event reaches each session of its rooms once and in order, but not those in excepted rooms", async ({ node, io, ws }) => {
    const one = await node();
    const both = await (await io(one, { token: tokenFor("1") }).connected()).join("room:a", "room:b");
    const onlyA = await (await ws(one, { token: tokenFor("2") }).welcomed()).join("room:a");
    const offsets = [
      await published(one, { rooms: ["room:a", "room:b", "room:none"], event: "both", data: 1 }),
      await published(one, { rooms: ["room:a"], except: ["room:b"], event: "not b", args: [1, 2] }),
      await published(one, { rooms: ["room:b"], event: "no args", args: [] }),
      await published(one, { rooms: ["room:a", "room:b"], event: "end" }),
    ];
    assert.equal(new Set(offsets).size, 4);
    assert.ok(offsets.every((offset) => typeof offset === "string" && offset.length > 0));
    await both.event("end");
    await onlyA.event("end");
    assert.deepEqual(both.events.map(({ name, args }) => [name, args]), [["both", [1]], ["no args", []], ["end", []]]);
    assert.deepEqual(onlyA.messages.filter((m) => m.type === "event").map((m) => m.event), ["both", "not b", "end"]);
  });

  scenario("except: a notice reaches a user only on devices where the conversation is not open, on two nodes and every transport, also after a reconnection", async (s) => {
    const { url } = await s.redis();
    const [one, other] = await Promise.all([1, 2].map(() => s.node({ redis: { url } })));
    const balancer = await s.proxy(other);
    const transports = { websocket: ["websocket"], polling: ["polling"], upgraded: ["polling", "websocket"] };
    const devices = await Promise.all([one, balancer].flatMap((node) => Object.values(transports).flatMap((transports) => [true, false].map(async (viewing) => {
      const client = await s.io(node, { token: tokenFor("7"), transports }).connected();
      if (viewing) await client.join("room:42");
      return { node, client, viewing, event: (name) => client.event(name), count: (name) => client.argsOf(name).length };
    }))));
    const plain = await (await s.ws(other, { token: tokenFor("7") }).welcomed()).join("room:42");
    devices.push({ client: plain, viewing: true, event: (name) => plain.event(name), count: (name) => plain.eventsOf(name).length });
    const stream = await s.sse(one, { token: tokenFor("7"), rooms: ["user:7"] }).answered();
    devices.push({ client: stream, viewing: false, event: (name) => stream.event(name), count: (name) => stream.eventsOf(name).length });
    const buyer = await (await s.io(one, { token: tokenFor("8"), transports: ["websocket"] }).connected()).join("room:42");

    const notice = (name, more) => ({ rooms: ["user:7", "user:9", "room:43"], except: ["room:42"], event: name, data: { id: 1 }, ...more });
    await published(one, notice("from one"));
    await published(other, notice("from other"));
    const [batched] = await published(one, { events: [notice("batched", { id: "message-1" }), notice("batched", { id: "message-1" })] });
    assert.ok(batched.offset);
    await published(other, { rooms: ["room:42", "user:7"], except: ["user:8"], event: "all but the buyer", data: 1 });
    await published(other, { rooms: ["user:7", "user:8"], event: "end", data: 1 });
    await Promise.all([...devices, buyer].map((device) => device.event("end")));
    for (const { viewing, count } of devices) {
      assert.deepEqual(["from one", "from other", "batched", "all but the buyer"].map(count), viewing ? [0, 0, 0, 1] : [1, 1, 1, 1]);
    }
    assert.deepEqual(buyer.events.map(({ name }) => name), ["end"]);

    const away = devices.filter(({ node }) => node === balancer);
    const back = devices.find(({ node, viewing }) => node === one && viewing).client;
    balancer.cut();
    await back.ask("leave", "42");
    await published(one, notice("while away"));
    await published(one, { room: "user:7", event: "last", data: 1 });
    await Promise.all(devices.map((device) => device.event("last")));
    for (const { client, viewing, count } of away) {
      // A polling client between two requests does not notice the cut.
      assert.deepEqual([client.socket.recovered, count("while away")], [client.connects > 1, viewing ? 0 : 1]);
    }
    assert.ok(away.some(({ client }) => client.connects > 1));
    assert.equal(back.argsOf("while away").length, 1, "this device has left the conversation");
  });

  scenario("a session's id is a room of its own, and a room without sessions accepts events", async ({ node, io }) => {
    const one = await node();
    const [client, other] = [io(one, { token: tokenFor("1") }), io(one, { token: tokenFor("1") })];
    await Promise.all([client.connected(), other.connected()]);
    await published(one, { room: "room:nobody", event: "e", data: 1 });
    await published(one, { room: client.socket.id, event: "mine", data: 1 });
    await published(one, { room: "user:1", event: "end", data: 1 });
    await Promise.all([client.event("end"), other.event("end")]);
    assert.deepEqual([client.argsOf("mine"), other.argsOf("mine")], [[[1]], []]);
  });

  scenario("a repeated id is answered with the first offset and delivered once", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("1") }).connected();
    const event = { room: "user:1", event: "paid", data: 1, id: "order-1" };
    const offsets = [await published(one, event), await published(one, event), await published(one, { ...event, data: 2 })];
    assert.equal(new Set(offsets).size, 1);
    const raced = await Promise.all(Array.from({ length: 20 }, () => published(one, { ...event, event: "raced", id: "order-2" })));
    assert.equal(new Set(raced).size, 1);
    const [first, second] = await published(one, { events: [{ ...event, id: "order-3" }, { ...event, id: "order-3" }] });
    assert.equal(first.offset, second.offset);
    await published(one, { room: "user:1", event: "end", data: 1 });
    await client.event("end");
    assert.deepEqual([client.argsOf("paid").length, client.argsOf("raced").length], [2, 1]);
  });

  scenario("a batch: valid events are delivered, invalid ones get an error, and the results are in order", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("1") }).connected();
    const event = (data, more) => ({ room: "user:1", event: "n", data, ...more });
    const events = [event(1), event(2, { room: "" }), event(3), { event: "no room" }, event(4, { volatile: true }), 5, event(6, { event: "disconnect" })];
    const results = await published(one, { events });
    assert.equal(results.length, events.length);
    for (const at of [0, 2]) assert.equal(typeof results[at].offset, "string");
    assert.equal(results[4].offset, null);
    for (const at of [1, 3, 5, 6]) assert.match(results[at].error.code, /^[a-z_]+$/);
    assert.equal(results[6].error.code, "reserved_event");
    await published(one, { room: "user:1", event: "end", data: 1 });
    await client.event("end");
    const numbers = client.argsOf("n").map(([n]) => n);
    assert.deepEqual(numbers.filter((n) => n !== 4), [1, 3]);
    assert.equal((await published(one, { events: Array(1000).fill(event(0)) })).length, 1000);
    assert.deepEqual(await published(one, { events: [] }), []);
    assertError(await publish(one, { events: Array(1001).fill(event(0)) }), 400);
  });

  scenario("NDJSON: each line is an event; blank lines and a missing last newline are accepted", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token: tokenFor("1") }).connected();
    const lines = ['{"room":"user:1","event":"n","data":1}', "", "{broken", '{"room":"user:1","event":"n","data":2}\r', '{"room":"user:1","event":"end"}'];
    const results = await published(one, lines.join("\n"), { headers: { "content-type": "application/x-ndjson" } });
    assert.deepEqual(results.map((result) => (result.error ? "error" : typeof result.offset)), ["string", "error", "string", "string"]);
    await client.event("end");
    assert.deepEqual(client.argsOf("n"), [[1], [2]]);
  });

  scenario("a malformed event gets 400, a code and a message that names the field", async ({ node }) => {
    const one = await node();
    const cases = [
      ["", null], ["{", "bad_json"], ["[]", null], ["null", null], ["1", null],
      [{ event: "e", data: 1 }, "no_room"], [{ ...good, room: undefined, rooms: [] }, "no_room"],
      [{ ...good, rooms: ["room:b"] }, "bad_field"], [{ ...good, room: 7 }, "bad_field"], [{ ...good, room: undefined, rooms: "room:a" }, "bad_field"],
      [{ room: "room:a", data: 1 }, "bad_field"], [{ ...good, event: true }, "bad_field"], [{ ...good, args: [1] }, "bad_field"],
      [{ ...good, data: undefined, args: {} }, "bad_field"], [{ ...good, except: "room:b" }, "bad_field"], [{ ...good, volatile: "yes" }, "bad_field"],
      [{ ...good, colour: "red" }, "bad_field"], [{ ...good, room: "" }, "bad_room"], [{ ...good, room: "a\u0000b" }, "bad_room"],
      [{ ...good, room: "x".repeat(201) }, "bad_room"], [{ ...good, except: [""] }, "bad_room"], [{ ...good, event: "" }, "bad_event_name"],
      [{ ...good, event: "connect_error" }, "reserved_event"], [{ ...good, namespace: "chat" }, "bad_namespace"], [{ ...good, id: "x".repeat(300) }, "bad_id"],
      [{ ...good, data: undefined, args: Array(11).fill({ $binary: "AA==" }) }, "too_many_attachments"],
      [{ ...good, data: { $binary: "not base64!" } }, null], ['{"room":"a","room":"b","event":"e","data":1}', null],
      [Buffer.from('{"room":"a","event":"e","data":"\xff"}', "latin1"), null],
    ];
    for (const [body, code] of cases) {
      const answer = await publish(one, body);
      assert.equal(answer.status, 400, `${JSON.stringify(body)} was answered ${answer.status} ${answer.text}`);
      const error = assertError(answer, 400, code);
      if (code === "bad_field") assert.match(error.message, /room|event|args|data|except|volatile|colour|column/, error.message);
    }
    await published(one, { ...good, data: undefined, args: Array(10).fill({ $binary: "AA==" }) });
  });

  scenario("a missing or wrong key, or a key in the query, gets 401; without configured keys 403", async ({ node }) => {
    const one = await node();
    const off = (key, at) => key.slice(0, at) + (key[at] === "x" ? "y" : "x") + key.slice(at + 1);
    for (const key of [null, "", "wrong", KEY.slice(0, -1), `${KEY}0`, off(KEY, 0), off(KEY, KEY.length - 1), KEY.toUpperCase()]) {
      const answer = await publish(one, good, { key });
      assertError(answer, 401);
      assert.ok(!answer.text.includes(KEY));
    }
    const inQuery = await request(`${one.url}/publish?key=${KEY}&token=${KEY}`, { method: "POST", body: JSON.stringify(good) });
    assertError(inQuery, 401);
    assertError(await publish(one, good, { key: null, headers: { authorization: `Basic ${KEY}` } }), 401);
    assertError(await publish(one, good, { key: null, headers: { authorization: `Bearer ${tokenFor("1")}` } }), 401);
    const keyless = await node({ publish: { keys: undefined } });
    for (const key of [null, KEY, ""]) assertError(await publish(keyless, good, { key }), 403);
  });

  scenario("a wrong key is refused before the body is read", async ({ node, raw }) => {
    const one = await node();
    const socket = raw(one);
    socket.write("POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer wrong\r\nContent-Length: 4000000\r\n\r\n");
    assert.match(await socket.head(), /^HTTP\/1\.1 401/);
  });

  scenario("two keys are valid at once; wrong methods, paths, content types and sizes are refused", async ({ node }) => {
    const one = await node({ publish: { keys: [KEY, "second-key-0123456789"], max_body: "4KB", max_event: "1KB" } });
    for (const key of [KEY, "second-key-0123456789"]) await published(one, good, { key });
    for (const method of ["GET", "PUT", "DELETE"]) {
      const answer = await request(`${one.url}/publish`, { method, headers: { authorization: `Bearer ${KEY}` } });
      assertError(answer, 405);
      assert.match(answer.headers.allow ?? "", /POST/);
    }
    assertError(await request(`${one.url}/no-such-path`), 404);
    assertError(await publish(one, { ...good, data: "x".repeat(4096) }), 413);
    assertError(await publish(one, { ...good, data: "x".repeat(1100) }), 413, "event_too_big");
    await published(one, { ...good, data: "x".repeat(900) });
    const chunked = { "transfer-encoding": "chunked" };
    assertError(await publish(one, { ...good, data: "x".repeat(8000) }, { headers: chunked }), 413);
    const unsupported = await publish(one, "<a/>", { headers: { "content-type": "application/xml" } });
    assert.ok([400, 415].includes(unsupported.status), unsupported.text);
    await published(one, JSON.stringify(good), { headers: { "content-type": "application/json; charset=utf-8" } });
  });
});
