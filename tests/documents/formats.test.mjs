// The JSON of the documents: requests are accepted, answers have the keys that a node's own have. The YAML parses. And every
// block of every page is run by some test.
import assert from "node:assert/strict";
import fs from "node:fs";
import { after, test } from "node:test";
import { parseAllDocuments } from "yaml";
import { startBackend } from "../harness/backend.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { sign, tokenFor } from "../harness/token.mjs";
import { assertAllRun, ELSEWHERE, KINDS, PAGES, RUN_BY, snippet, snippetsOf } from "./snippets.mjs";

const API = "docs/http-api.md";
const json = (page, has) => JSON.parse(snippet(page, "json", has));

/** The keys of a value, of what is in it, and of the first item of its lists. */
function shape(value) {
  if (Array.isArray(value)) return value.length > 0 ? [shape(value[0])] : [];
  if (value === null || typeof value !== "object") return typeof value === "number" ? "number" : "scalar";
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, shape(value[key])]));
}

suite("the JSON of the documents", () => {
  after(() => assertAllRun("formats.test.mjs"));

  scenario(`${API}: requests and answers`, async (s) => {
    const node = await s.node({
      socketio: { namespaces: ["/", "/chat"] },
      rooms: [{ match: "user:{user}", join: "auto" }, { match: "chat:<id>", join: "allow" }, { match: "conversation:<id>", join: "allow" }],
      on: [{ event: "join_chat", join: "chat:{0}" }, { event: "say", emit: [{ room: "chat:42", event: "said", include_caller: true }] }, { event: "sneak", join: "staff:1" }],
    });
    const client = await s.io(node, { auth: { token: tokenFor("7") } }).connected();
    await client.ask("join_chat", 42);
    await client.ask("say");
    await client.ask("sneak");
    const chat = await s.io(node, { namespace: "/chat", auth: { token: tokenFor("8") } }).connected();
    const get = async (path) => (await node.get(path, { authorization: `Bearer ${KEY}` })).json();
    const answers = async (has, path) => assert.deepEqual(shape(await get(path)), shape(json(API, has)), `GET ${path}`);

    assert.equal((await command(node, "/publish", json(API, '"event":"new_message","data"'))).status, 200);
    assert.equal((await command(node, "/join", json(API, '"rooms":["conversation:42"]'))).status, 200);
    await command(node, "/join", { session: chat.socket.id, namespace: "/chat", room: "conversation:42" });
    await answers('"users":["7","8"]', "/rooms/conversation:42?namespace=/chat");
    await until(async () => (await get("/users/7")).online, "user 7 online");
    await answers('"online":false', "/users/7");
    await answers('"lag_ms"', "/cluster");
    await answers('{"rooms":[{', "/rooms?prefix=chat:");
    await until(async () => (await get("/sessions?user=7")).sessions[0].last_refusal, "the refusal");
    await answers('"last_refusal"', "/sessions?user=7");
    await answers('"service":"roomcast"', "/health");
    const refused = await command(node, "/publish", { room: "chat:42", event: "connect" });
    assert.deepEqual(refused.json(), json(API, "reserved_event"));
    assert.equal((await command(node, "/revoke", json(API, '"for":"1h"'))).status, 200);
  });

  scenario(`${API}: why an event did not arrive`, async (s) => {
    const node = await s.node({ rooms: [{ match: "chat:<id>", join: "allow" }], on: [] });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    const offset = await published(node, { room: "chat:42", event: "new_message" });
    await client.join("chat:42");
    const answer = await node.get(`/explain?user=7&room=chat:42&event=${offset}`, { authorization: `Bearer ${KEY}` });
    assert.deepEqual(shape(answer.json()), shape(json(API, '"verdict":"joined_later"')));
  });

  scenario(`${API}: what a reload changed`, async (s) => {
    const node = await s.node({ redis: { prefix: "one" } });
    const text = fs.readFileSync(node.file, "utf8");
    fs.writeFileSync(node.file, text.replace('prefix = "one"', 'prefix = "other"').replace(/events_per_second = \d+/, "events_per_second = 77"));
    const answer = await command(node, "/reload", {});
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual(shape(answer.json()), shape(json(API, '"result":"applied"')));
  });

  scenario("docs/backend.md: what a backend gets", async (s) => {
    const backend = s.serve(await startBackend());
    const node = await s.node({ ...backend.config(), rooms: [{ match: "user:{user}", join: "auto" }], on: [{ event: "send_message", forward: true }] });
    const client = await s.io(node, { auth: { token: tokenFor(7) } }).connected();
    await client.ask("send_message", { text: "hi" });
    const { raw, signed, ...call } = await backend.call("event");
    const shown = json("docs/backend.md", '"send_message"');
    assert.deepEqual([signed, Object.keys(JSON.parse(raw)), call.args], [true, Object.keys(shown), shown.args]);
  });

  scenario("docs/guides/authorize-rooms.md: a token with rooms", async (s) => {
    const node = await s.node({ rooms: [], on: [] });
    const claims = json("docs/guides/authorize-rooms.md", '"rooms":["project:12"');
    const client = s.ws(node, { token: sign({ ...claims, exp: Math.floor(Date.now() / 1000) + 60 }) });
    await client.welcomed();
    await client.join("board:9");
    const answer = await node.get("/rooms/project:15", { authorization: `Bearer ${KEY}` });
    assert.deepEqual(answer.json().users, ["7"]);
  });
});

test("the YAML of the documents parses", () => {
  for (const { page, language, code } of PAGES.flatMap(snippetsOf)) {
    if (language !== "yaml") continue;
    for (const document of parseAllDocuments(code)) assert.deepEqual(document.errors, [], `${page}:\n${code}`);
  }
});

test("every block of the pages is run by a test, or it is said why not", () => {
  const claims = [...Object.values(RUN_BY).flat(), ...ELSEWHERE];
  const blocks = PAGES.flatMap(snippetsOf).filter(({ language }) => !(language in KINDS));
  const claimed = (page, code) => claims.some(([of, text]) => of === page && code.includes(text));
  const left = blocks.filter(({ page, code }) => !claimed(page, code)).map(({ page, heading, code }) => `${page}, ${heading}: ${code.split("\n")[0]}`);
  assert.deepEqual(left, [], "blocks that no test runs");
  for (const [page, text] of claims) assert.ok(snippetsOf(page).some(({ code }) => code.includes(text)), `${page} has no block with ${text}`);
});
