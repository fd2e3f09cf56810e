// Attachments: each message is limited by `socketio.max_payload`, as in the reference, and all of one packet by their own limit.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { joinedSocket } from "../harness/engine.mjs";
import { BINARY, frame } from "../harness/raw.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const WEBSOCKET = { transports: ["websocket"] };
const bytes = (size) => Buffer.alloc(size, 7);

suite("attachments", () => {
  scenario("three attachments of 400 KB and ten of 900 KB reach the backend, and the answer returns", async (s) => {
    const backend = s.serve(await startBackend());
    const one = await s.node({ ...backend.config(), on: [{ event: "upload", forward: true }] });
    backend.answer = (call) => ({ ack: [call.args.map((arg) => Buffer.from(arg.$binary, "base64").length)] });
    for (const transports of [["websocket"], ["polling"]]) {
      const client = await s.io(one, { token, transports }).connected();
      assert.deepEqual(await client.ask("upload", bytes(400_000), bytes(400_000), bytes(400_000)), [[400_000, 400_000, 400_000]]);
      assert.deepEqual(client.disconnects, [], String(transports));
    }
    const client = await s.io(one, { token, ...WEBSOCKET }).connected();
    const ten = Array.from({ length: 10 }, () => bytes(900_000));
    assert.deepEqual(await client.ask("upload", ...ten), [ten.map(() => 900_000)]);
  });

  scenario("a reply and an acknowledgement with all attachments arrive, although they are larger than outbox_bytes", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token, ...WEBSOCKET }).connected();
    for (const sizes of [Array(3).fill(400_000), Array(10).fill(900_000)]) {
      const answer = await client.ask("echo", ...sizes.map((size) => bytes(size)));
      assert.deepEqual(answer.map((item) => item.length), sizes);
    }
    assert.deepEqual([client.disconnects, client.argsOf("echoed").length], [[], 2]);
  });

  scenario("a client that gets its attachments back and reads nothing is closed as slow_consumer", async ({ node, keep }) => {
    const one = await node();
    const socket = keep(await joinedSocket(one, token));
    socket.socket.pause();
    await until(async () => {
      socket.sendText('451-["echo",{"_placeholder":true,"num":0}]');
      socket.write(frame(BINARY, bytes(900_000)));
      assert.ok((await one.metric("roomcast_outbox_bytes")) < 60_000_000);
      return (await one.metric('roomcast_closes_total{reason="slow_consumer"}')) === 1;
    }, "the slow consumer closed", 60_000);
  });

  scenario("an attachment over max_payload closes the connection with 1009", async ({ node, io }) => {
    const one = await node({ socketio: { max_payload: "100KB" } });
    const client = await io(one, { token, ...WEBSOCKET }).connected();
    client.socket.emit("echo", bytes(100_001));
    await client.disconnected();
    await one.metricIs('roomcast_closes_total{reason="too_big"}', 1);
  });

  scenario("attachments over the limit of one packet close the connection", async ({ node, keep }) => {
    const one = await node({ socketio: { max_payload: "10MB" } });
    const socket = keep(await joinedSocket(one, token));
    socket.sendText(`453-0["echo",${[0, 1, 2].map((num) => `{"_placeholder":true,"num":${num}}`)}]`);
    for (let sent = 0; sent < 3; sent += 1) socket.write(frame(BINARY, bytes(8_000_000)));
    await socket.closeCode();
    await one.metricIs('roomcast_closes_total{reason="parse_error"}', 1);
  });
});
