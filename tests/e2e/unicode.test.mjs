// Half of a surrogate pair in a JSON string, as in a text that was cut within an emoji: read as JSON.parse reads it.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { Polling, SEPARATOR, joinedSocket } from "../harness/engine.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { now, sign, tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");

suite("half of a surrogate pair", () => {
  scenario("in the name, an argument or a key of a client's event: accepted, and the connection stays open", async ({ node, keep }) => {
    const one = await node({ on: [{ event: "echo", ack: ["{args}"] }, { event: "x\ufffd", ack: ["lossy"] }] });
    const socket = keep(await joinedSocket(one, token));
    socket.sendText('420["x\\ud83d"]');
    await socket.text((text) => text === '430["lossy"]');
    socket.sendText('421["echo","\\ud83d",{"\\udc00":1}]');
    await socket.text((text) => text === '431["\\ud83d",{"\\udc00":1}]');
    const polling = await new Polling(one).open();
    await polling.join({ token });
    await polling.post(`420["\\ud83d"]${SEPARATOR}421["echo",1]`);
    const packets = [];
    while (packets.length < 2) packets.push(...(await polling.get()).text.split(SEPARATOR));
    assert.match(packets[0], /^430\[\{"error":\{"code":"no_rule"/);
    assert.equal(packets[1], "431[1]");
  });

  scenario("in a room name: refused, since two names must not become one, and the connection stays open", async ({ node, keep, ws }) => {
    const one = await node();
    const socket = keep(await joinedSocket(one, token));
    socket.sendText('420["join","\\ud83d"]');
    await socket.text((text) => text.startsWith('430[{"error":{"code":"not_text"'));
    const plain = await ws(one, { token }).welcomed();
    plain.socket.send('{"type":"join","room":"room:\\ud83d","id":1}');
    assert.equal((await plain.message((message) => message.id === 1)).code, "bad_field");
    plain.socket.send('{"type":"event","event":"echo","data":"\\ud83d","id":2,"\\ud83d":null}');
    assert.equal((await plain.message((message) => message.id === 2 || message.code === "unknown_key")).type, "error");
    plain.socket.send('{"type":"event","event":"echo","data":"\\ud83d","id":3}');
    assert.equal((await plain.message((message) => message.id === 3)).data, "\ud83d");
  });

  scenario("in publishes, answers of the backend and claims: accepted", async (s) => {
    const backend = s.serve(await startBackend());
    const one = await s.node({ ...backend.config(), on: [{ event: "ask", forward: true }] });
    const claims = `{"sub":"7","name":"x\\ud83d","exp":${now() + 600}}`;
    const client = await s.ws(one, { token: sign(claims) }).welcomed();
    await published(one, '{"room":"user:7","event":"cut \\ud83d","data":"\\ud83d"}');
    assert.equal((await client.event("cut \ufffd")).data, "\ud83d");
    backend.answer = () => (response) => response.end('{"ack":["\\ud83d"],"reply":[{"event":"re \\ud83d","args":["\\ud83d"]}]}');
    assert.equal((await client.ask({ type: "event", event: "ask", data: "\ud83d" })).data, "\ud83d");
    assert.equal((await client.event("re \ufffd")).data, "\ud83d");
    assert.equal((await backend.call("event")).args[0], "\ud83d");
  });
});
