// Bodies of POST requests: what counts as an object, and what a client learns about one that is not taken.
import assert from "node:assert/strict";
import zlib from "node:zlib";
import { assertError, command, publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const EVENT = JSON.stringify({ room: "user:7", event: "e" });
const MARK = "\ufeff";

suite("bodies", () => {
  scenario("a list of values is not an object, wherever one is expected", async ({ node, ws }) => {
    const one = await node();
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    const event = '["user:7",null,null,"e",1,null,null,null,null,null]';
    for (const [path, body] of [
      ["/publish", event], ["/publish", `[${EVENT},${EVENT}]`], ["/publish", "[]"], ["/join", '["7",null,null,"room:a",null,null]'], ["/leave", '["7",null,null,"room:a",null,null]'],
      ["/disconnect", '["7",null,null,null,null,null]'], ["/users", '[["7"]]'], ["/revoke", '["7",null,"1h"]'], ["/drain", '["1s",null]'], ["/reload", "[null]"],
    ]) {
      const { message } = assertError(await command(one, path, body), 400);
      assert.match(message, /expected an object, not a list/, `${path} ${body}`);
      if (path === "/publish") assert.match(message, /several events are .*"events".*x-ndjson/, "what to do");
    }
    const [batch] = await published(one, `{"events":[${event}]}`);
    const [line] = await published(one, event, { headers: { "content-type": "application/x-ndjson" } });
    for (const { error } of [batch, line]) assert.equal(error.code, "bad_field");
    await published(one, { room: "user:7", event: "last" });
    await client.event("last");
    assert.equal(client.eventsOf("e").length, 0, "none of them was published");
  });

  scenario("several lines, whatever the case of their type", async ({ node }) => {
    const one = await node();
    const send = (type) => publish(one, `${EVENT}\n${EVENT}\n`, { headers: { "content-type": type } });
    for (const type of ["application/x-ndjson", "Application/X-NDJSON", "application/x-ndjson; charset=utf-8"]) {
      assert.equal((await send(type)).json().results?.length, 2, type);
    }
    for (const type of ["application/json", "application/x-ndjsonp"]) {
      assert.match(assertError(await send(type), 400, "bad_json").message, /several events are .*x-ndjson/, type);
    }
  });

  scenario("a byte order mark says nothing; other encodings and nothing at all are named", async ({ node }) => {
    const one = await node();
    await published(one, MARK + EVENT);
    const results = await published(one, `${MARK}${EVENT}\n${EVENT}`, { headers: { "content-type": "application/x-ndjson" } });
    assert.ok(results.every(({ offset }) => offset), JSON.stringify(results));
    assert.equal((await command(one, "/join", `${MARK}{"user":"7","room":"room:a"}`)).status, 200);
    const compressed = await publish(one, zlib.gzipSync(EVENT), { headers: { "content-encoding": "gzip" } });
    assert.match(assertError(compressed, 400, "bad_json").message, /not UTF-8.*compressed/);
    for (const path of ["/publish", "/join", "/users", "/revoke"]) {
      assert.match(assertError(await command(one, path, ""), 400, "bad_json").message, /there is nothing/, path);
    }
  });
});
