// The fields of a dead letter: the copy of an entry that could not be read.
import assert from "node:assert/strict";
import { until } from "../harness/deadline.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

/** The fields of the dead letters, as pairs. */
async function letters(redis) {
  const lines = (await redis.cli("XRANGE", "roomcast:dead", "-", "+")).split("\n").filter(Boolean);
  const all = [];
  for (let index = 0; index < lines.length; index += 1) {
    if (/^\d+-\d+$/.test(lines[index]) && lines[index - 1] !== "entry") all.push([]);
    else all.at(-1).push([lines[index], lines[(index += 1)]]);
  }
  return all;
}

suite("dead letters", () => {
  scenario("the entry's own id is kept once, and its stream id has another name", async ({ node, redis }) => {
    const server = await redis();
    await node({ redis: { url: server.url } });
    const position = await server.cli("XADD", "roomcast:events", "*", "room", "r", "event", "e", "data", "{oops", "id", "order-7");
    const [fields] = await until(async () => {
      const found = await letters(server);
      return found.length === 1 && found;
    }, "the dead letter");
    assert.deepEqual(fields.filter(([name]) => name === "id"), [["id", "order-7"]]);
    assert.deepEqual(fields.filter(([name]) => name === "entry"), [["entry", position]]);
    assert.equal(fields.filter(([name]) => name === "error").length, 1);
    assert.deepEqual(fields.find(([name]) => name === "data"), ["data", "{oops"]);
  });

  scenario("an entry with fields named entry and error keeps them beside those of the dead letter", async ({ node, redis }) => {
    const server = await redis();
    await node({ redis: { url: server.url } });
    const position = await server.cli("XADD", "roomcast:events", "*", "room", "r", "event", "e", "entry", "x", "error", "y");
    const [fields] = await until(async () => {
      const found = await letters(server);
      return found.length === 1 && found;
    }, "the dead letter");
    assert.deepEqual(fields.filter(([name]) => name === "entry"), [["entry", position]]);
    assert.equal(fields.filter(([name]) => name === "error").length, 1);
    assert.notEqual(fields.find(([name]) => name === "error")[1], "y");
    assert.deepEqual(fields.filter(([name]) => name.startsWith("own_")), [["own_entry", "x"], ["own_error", "y"]]);
  });
});
