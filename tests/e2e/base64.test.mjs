// Base64 is decoded as in Node: with line breaks, the URL-safe alphabet, and missing padding.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { Polling, SEPARATOR, engineSocket } from "../harness/engine.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const HEADER = '451-["echo",{"_placeholder":true,"num":0}]';
/** The output of several encoders, and the standard form of the bytes that Node decodes from it. */
const WRITTEN = [["AQI=\n", "AQI="], ["AQ\r\nI=\r\n", "AQI="], ["AQI", "AQI="], ["-_-_", "+/+/"], ["", ""]];

suite("base64", () => {
  scenario("an attachment over polling, as the Java client encodes it", async ({ node }) => {
    const one = await node();
    const polling = await new Polling(one).open();
    await polling.join({ token });
    for (const [written, read] of WRITTEN) {
      assert.equal((await polling.post(`${HEADER}${SEPARATOR}b${written}`)).text, "ok");
      let packets = "";
      await until(async () => (packets += SEPARATOR + (await polling.get()).text).includes(`${SEPARATOR}b`), () => `an echo of ${written}: ${packets}`);
      assert.match(packets, new RegExp(`\\x1eb${read.replaceAll("+", "\\+")}(\\x1e|$)`), JSON.stringify(written));
    }
  });

  scenario("an attachment in a text frame of a WebSocket", async ({ node, keep }) => {
    const one = await node();
    const socket = keep(await engineSocket(one));
    socket.sendText(`40${JSON.stringify({ token })}`);
    await socket.text((text) => text.startsWith("40"));
    for (const [index, [written, read]] of WRITTEN.entries()) {
      socket.sendText(HEADER);
      socket.sendText(`b${written}`);
      const frames = () => socket.frames.filter(({ opcode }) => opcode === 2);
      await until(() => frames().length > index, () => `an echo of ${JSON.stringify(written)}; closed: ${socket.closed}`);
      assert.equal(frames()[index].payload.toString("base64"), read);
    }
  });

  scenario("a binary value in a publish", async ({ node, io }) => {
    const one = await node();
    const client = await io(one, { token }).connected();
    for (const [written, read] of WRITTEN) {
      await published(one, { room: "user:7", event: `bytes ${read}`, data: { $binary: written } });
      const [bytes] = await client.event(`bytes ${read}`);
      assert.equal(Buffer.from(bytes).toString("base64"), read);
    }
  });
});
