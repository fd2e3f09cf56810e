// Payloads are passed on byte for byte, up to a megabyte, from every source and on every protocol.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { joinedSocket } from "../harness/engine.mjs";
import { publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const PAYLOADS = [
  "9007199254740993", "-0", "1.0", "1E+2", "1e-400", "123456789012345678901234567890.5", "null", "true", '""', "[]", "{}",
  '"\\u00e9\\ud83d\\ude00\\/\\"\\\\\\u0000\\u2028"', '"é😀𐍈\u2028\u202e"', '{ "sp" : [ 1 , 2 ] }', '{"b":1,"a":2,"b":3}',
  `${"[".repeat(100)}{"deep":[null]}${"]".repeat(100)}`, '{"$binarx":"AA==","_placeholder":true,"num":0}',
];
const MEGABYTE = 1_000_000;

/** A client of each protocol in the room of user 7: how it shows the data of an event. */
async function listeners({ ws, sse, keep }, node) {
  const token = tokenFor("7");
  const plain = await ws(node, { token }).welcomed();
  const stream = await sse(node, { token, rooms: ["user:7"] }).answered();
  const socket = keep(await joinedSocket(node, token));
  return {
    plain: (event) => plain.texts.find((text) => text.includes(`"event":${JSON.stringify(event)}`)),
    stream: (event) => stream.events.find(({ name }) => name === event)?.data,
    socket: (event) => socket.texts.find((text) => text.startsWith(`42[${JSON.stringify(event)}`)),
  };
}

async function assertBytes(wires, event, payload) {
  const seen = (wire) => until(() => wire(event), `${event} with ${payload.slice(0, 60)}`);
  const plain = await seen(wires.plain);
  assert.ok(plain.includes(`"data":${payload}`), plain.slice(0, 300));
  assert.equal(await seen(wires.stream), payload);
  const socket = await seen(wires.socket);
  const rest = socket.slice(`42[${JSON.stringify(event)},`.length);
  assert.ok(rest.startsWith(payload), socket.slice(0, 300));
  assert.match(rest.slice(payload.length), /^(,"[^"]+")?\]$/, "at most an offset follows");
}

suite("payload bytes", () => {
  for (const log of ["the embedded log", "Redis"]) {
    scenario(`payloads arrive as they were written, through ${log}`, async (started) => {
      const redis = log === "Redis" ? { url: (await started.redis()).url } : undefined;
      const node = await started.node({ redis });
      const wires = await listeners(started, node);
      const ndjson = { headers: { "content-type": "application/x-ndjson" } };
      for (const [n, payload] of PAYLOADS.entries()) {
        const event = (name) => `{"room":"user:7","event":"${name} ${n}","data":${payload}}`;
        await published(node, event("single"));
        await published(node, `{"events":[${event("batch")}]}`);
        await published(node, `${event("line")}\n`, ndjson);
        await published(node, `{"room":"user:7","event":"args ${n}","args":[${payload}]}`);
        await published(node, `{"room":"user:7","event":"volatile ${n}","data":${payload},"volatile":true}`);
        await assertBytes(wires, `single ${n}`, payload);
        await assertBytes(wires, `batch ${n}`, payload);
        await assertBytes(wires, `line ${n}`, payload);
        await assertBytes(wires, `args ${n}`, payload);
        await assertBytes(wires, `volatile ${n}`, payload);
      }
    });

    scenario(`a payload of one megabyte arrives with default limits, through ${log}`, async (started) => {
      const redis = log === "Redis" ? { url: (await started.redis()).url } : undefined;
      const node = await started.node({ redis });
      const wires = await listeners(started, node);
      const polling = await started.io(node, { token: tokenFor("7"), transports: ["polling"] }).connected();
      for (const n of [1, 2, 3]) {
        const payload = JSON.stringify("é".repeat(MEGABYTE / 2 - 50 - n));
        await published(node, `{"room":"user:7","event":"big ${n}","data":${payload}}`);
        await assertBytes(wires, `big ${n}`, payload);
        assert.equal((await polling.event(`big ${n}`))[0], JSON.parse(payload));
      }
    });
  }

  scenario("lone surrogates are refused or passed on, never changed", async (started) => {
    const node = await started.node();
    const wires = await listeners(started, node);
    const payload = '"\\ud800"';
    const answer = await publish(node, `{"room":"user:7","event":"lone","data":${payload}}`);
    if (answer.status === 200) await assertBytes(wires, "lone", payload);
    else assert.equal(answer.status, 400);
  });

  scenario("a client's payload reaches the others unchanged, also a megabyte", async (started) => {
    const node = await started.node({
      // The sender gets it twice, as an event and in the acknowledgement, and may read neither for a while.
      limits: { outbox_bytes: "4MB" },
      rooms: [{ match: "user:{user}", join: "auto" }, { match: "room:<name>", join: "allow" }],
      on: [
        { event: "join", join: "room:{0}", ack: [{ ok: true }] },
        { event: "relay", emit: [{ room: "room:a", event: "relayed", args: ["{0}"], include_caller: true }], ack: ["{0}"] },
      ],
    });
    const sender = started.keep(await joinedSocket(node, tokenFor("7")));
    const other = await (await started.ws(node, { token: tokenFor("8") }).welcomed()).join("room:a");
    sender.sendText('420["join","a"]');
    await sender.text((text) => text.startsWith("430"));
    const payloads = PAYLOADS.filter((payload) => !payload.includes("_placeholder"));
    for (const [n, payload] of payloads.entries()) {
      sender.sendText(`42${n + 1}["relay",${payload}]`);
      assert.equal(await sender.text((text) => text.startsWith(`43${n + 1}[`)), `43${n + 1}[${payload}]`);
      await until(() => other.eventsOf("relayed").length === n + 1, "the relayed event");
      assert.ok(other.texts.at(-1).includes(`"data":${payload}`), other.texts.at(-1));
    }
    const client = await (await started.io(node, { token: tokenFor("9") }).connected()).join("room:a");
    const big = "x".repeat(MEGABYTE - 100);
    assert.equal((await client.ask("relay", big))[0], big);
    await until(() => other.eventsOf("relayed").at(-1).data === big, "the megabyte");
  });

  scenario("events without arguments arrive without arguments", async (started) => {
    const node = await started.node({ recovery: { window: "0s" } });
    const wires = await listeners(started, node);
    await published(node, { room: "user:7", event: "nothing" });
    await published(node, { room: "user:7", event: "empty", args: [] });
    for (const event of ["nothing", "empty"]) {
      assert.equal(await until(() => wires.socket(event), event), `42["${event}"]`);
      const { args, data } = JSON.parse(await until(() => wires.plain(event), event));
      assert.deepEqual([args ?? [], data], [[], undefined]);
    }
  });
});
