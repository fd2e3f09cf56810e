// A client that asked for an acknowledgement gets one, also where the intended one cannot be sent.
import assert from "node:assert/strict";
import { startBackend } from "../harness/backend.mjs";
import { Polling, SEPARATOR } from "../harness/engine.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
/** Arguments that no Socket.IO packet can carry, and the error for them. */
const UNWRITABLE = [
  ["bad_base64", [{ $binary: "?" }]],
  ["too_many_attachments", Array.from({ length: 11 }, () => ({ $binary: "AQ==" }))],
  ["placeholder_in_arguments", [{ $binary: "AQ==" }, { _placeholder: true, num: 9 }]],
];
const RULES = [
  { event: "echo", ack: ["{args}"] },
  { event: "reply", reply: { event: "replied", args: ["{args}"] }, ack: ["done"] },
  { event: "sorry", join: "closed:x", ack_error: ["{args}"] },
];

suite("acknowledgements that cannot be sent", () => {
  scenario("an `ack`, `reply` or `ack_error` of a rule that cannot be sent is acknowledged with an error, on both transports", async ({ node, io }) => {
    const one = await node({ on: RULES });
    for (const transports of [["websocket"], ["polling"]]) {
      const client = await io(one, { token, transports }).connected();
      for (const [code, args] of UNWRITABLE) {
        for (const event of ["echo", "reply", "sorry"]) {
          const [answer] = await client.ask(event, ...args);
          assert.equal(answer.error.code, code, event);
          assert.ok(answer.error.message.length > 10);
        }
      }
      assert.deepEqual(await client.ask("echo", { $binary: "AQI" }), [Buffer.from([1, 2])], "the others go on");
      assert.deepEqual([client.disconnects, client.argsOf("replied")], [[], []]);
    }
  });

  scenario("an acknowledgement of the backend that cannot be sent becomes an error", async (s) => {
    const backend = s.serve(await startBackend());
    const one = await s.node({ ...backend.config(), on: [{ event: "ask", forward: true }] });
    const client = await s.io(one, { token, transports: ["websocket"] }).connected();
    for (const [, args] of UNWRITABLE) {
      for (const answer of [{ ack: args }, { reply: [{ event: "replied", args }] }, { emit: [{ room: "user:7", event: "emitted", args }] }]) {
        backend.answer = () => answer;
        assert.equal((await client.ask("ask"))[0].error.code, "backend_bad_answer");
      }
    }
    backend.answer = () => ({ ack: [1] });
    assert.deepEqual(await client.ask("ask"), [1]);
    assert.deepEqual(client.events, []);
  });

  scenario("other packets in the same payload are sent", async ({ node }) => {
    const one = await node({ on: RULES });
    const polling = await new Polling(one).open();
    await polling.join({ token });
    await polling.post(`420["echo",{"$binary":"?"}]${SEPARATOR}421["echo",2]`);
    const packets = [];
    while (packets.length < 2) packets.push(...(await polling.get()).text.split(SEPARATOR));
    assert.match(packets[0], /^430\[\{"error":\{"code":"bad_base64"/);
    assert.deepEqual(packets.slice(1), ["431[2]"]);
  });
});
