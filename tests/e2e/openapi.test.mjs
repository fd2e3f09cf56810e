// GET /openapi.json describes what a node answers: every path, every method, and every answer by its schema.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import Ajv from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const root = path.join(import.meta.dirname, "../..");
const file = path.join(root, "src/http/openapi.json");
const api = JSON.parse(fs.readFileSync(file, "utf8"));
const key = { authorization: `Bearer ${KEY}` };

const ajv = new Ajv({ strict: true, strictRequired: false, allowUnionTypes: true, allErrors: true });
addFormats(ajv);
ajv.addKeyword("example");
for (const [name, schema] of Object.entries(api.components.schemas)) ajv.addSchema(schema, `#/components/schemas/${name}`);
const resolved = (part) => (part.$ref ? part.$ref.slice(2).split("/").reduce((at, name) => at[name], api) : part);

/** Checks an answer against what the document says of its path and status. */
function check(template, method, answer) {
  const { responses } = api.paths[template][method];
  const where = `${method} ${template}: ${answer.status} ${answer.text.slice(0, 300)}`;
  assert.ok(responses[answer.status], `${where} is not described`);
  const { content } = resolved(responses[answer.status]);
  const type = answer.headers["content-type"]?.split(";")[0];
  assert.ok(content?.[type], `${where}: the type ${type} is not described`);
  if (type !== "application/json") return;
  const valid = ajv.compile(content[type].schema);
  assert.ok(valid(answer.json()), `${where}\n${ajv.errorsText(valid.errors, { separator: "\n" })}`);
}

const METHODS = ["get", "post", "put", "patch", "delete"];

suite("openapi", () => {
  scenario("a validator of others accepts it, and the node serves it without a key", async ({ node }) => {
    const python = path.join(root, "tests/.venv/bin/python");
    await promisify(execFile)(python, ["-m", "openapi_spec_validator", "--schema", "3.1.0", file]);
    const answer = await (await node()).get("/openapi.json");
    assert.deepEqual([answer.status, answer.json()], [200, api]);
    const ids = Object.values(api.paths).flatMap((item) => Object.values(item).map(({ operationId }) => operationId));
    assert.equal(new Set(ids).size, ids.length);
  });

  scenario("every path of the route table is in it, and the node serves every path and method that is in it", async ({ node }) => {
    const routes = fs.readFileSync(path.join(root, "src/http/routes.rs"), "utf8").split("#[cfg(test)]")[0];
    const served = new Set([...routes.matchAll(/"(\/[a-z/._-]*)"/g)].map(([, route]) => route));
    const described = Object.keys(api.paths).flatMap((template) => (template.includes("{") ? [template.split("{")[0]] : [template]));
    // The path of Socket.IO is a setting, the console's files are no API.
    const elsewhere = new Set(["/socket.io/", "/console/session", "/console"]);
    assert.deepEqual([...served].filter((route) => route !== "/" && !described.includes(route)), [], "not described");
    assert.deepEqual(described.filter((route) => !served.has(route) && !elsewhere.has(route)), [], "not in the route table");
    const one = await node();
    for (const [template, item] of Object.entries(api.paths)) {
      const at = template.replace("{room}", "user%3A7").replace("{id}", "7");
      for (const method of METHODS) {
        const body = method === "post" ? "{}" : undefined;
        // Nothing is done: there is no key.
        const answer = await request(one.url + at, { method: method.toUpperCase(), body });
        const is = template === "/socket.io/" ? METHODS.includes(method) : answer.status !== 405;
        if (item[method]) {
          assert.notEqual(answer.status, 404, `${method} ${template}`);
          assert.ok(is, `${method} ${template}: ${answer.status}`);
          if (template !== "/socket.io/" && template !== "/ws") check(template, method, answer);
        } else if (template !== "/socket.io/") {
          assert.equal(answer.status, 405, `${method} ${template} is served and not described`);
        }
      }
    }
  });

  scenario("every answer is as described", async ({ node, io, ws }) => {
    const one = await node({ recovery: { window: "1m" } });
    const client = await io(one, { token: tokenFor("7", { rooms: ["room:a"] }) }).connected();
    await ws(one, { token: tokenFor("8") }).welcomed();
    await client.ask("sneak", "x");
    const ask = async (template, method, { at = template, body, headers = key, status = 200 } = {}) => {
      const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
      const answer = await request(one.url + at, { method: method.toUpperCase(), headers, body: text });
      assert.equal(answer.status, status, `${method} ${at}: ${answer.text}`);
      check(template, method, answer);
      return answer;
    };
    const event = { room: "user:7", event: "e", data: { n: 1 } };
    const { offset } = (await ask("/publish", "post", { body: event })).json();
    await ask("/publish", "post", { body: { events: [event, { room: "user:7" }, { ...event, volatile: true }] } });
    await ask("/publish", "post", { body: "{", status: 400 });
    await ask("/publish", "post", { body: event, headers: {}, status: 401 });
    await ask("/join", "post", { body: { user: "7", rooms: ["room:b"] } });
    await ask("/leave", "post", { body: { user: "7", room: "room:b" } });
    await ask("/join", "post", { body: { user: "7" }, status: 400 });
    await ask("/cluster", "get");
    await ask("/rooms", "get", { at: "/rooms?limit=1" });
    await ask("/rooms", "get", { at: "/rooms?limit=0", status: 400 });
    await ask("/rooms/{room}", "get", { at: "/rooms/room%3Aa" });
    await ask("/rooms/{room}", "get", { at: "/rooms/%ff", status: 400 });
    await ask("/users/{id}", "get", { at: "/users/7" });
    await ask("/users", "post", { body: { users: ["7", 8, "nobody"] } });
    const { sessions } = (await ask("/sessions", "get", { at: "/sessions?limit=1" })).json();
    await ask("/sessions", "get", { at: "/sessions?user=7" });
    await ask("/sessions/{id}", "get", { at: `/sessions/${sessions[0].session}` });
    await ask("/sessions/{id}", "get", { at: "/sessions/nobody", status: 404 });
    await ask("/explain", "get", { at: `/explain?user=7&room=user%3A7&event=${offset}` });
    await ask("/explain", "get", { at: "/explain?user=nobody&room=room%3Aa" });
    await ask("/explain", "get", { at: "/explain?user=7", status: 400 });
    await ask("/trace", "get", { status: 400 });
    await until(() => one.answers("/socket/ping"), "a probe that goes through");
    for (const public_ of ["/health", "/health/live", "/socket/ping", "/openapi.json", "/metrics", "/console", "/console/session"]) await ask(public_, "get", { headers: {} });
    const own = { "x-roomcast-console": "1", origin: one.url };
    await ask("/console/session", "post", { body: { key: "wrong" }, headers: own, status: 401 });
    await ask("/console/session", "post", { body: { key: KEY }, headers: {}, status: 403 });
    const signedIn = await ask("/console/session", "post", { body: { key: KEY }, headers: own });
    const cookie = signedIn.headers["set-cookie"][0].split(";")[0];
    await ask("/console/session", "get", { headers: { cookie } });
    await ask("/console/session", "delete", { headers: { ...own, cookie } });
    await ask("/sse", "get", { headers: {}, status: 401, at: "/sse?room=user:7" });
    await ask("/socket.io/", "get", { headers: {}, at: "/socket.io/?EIO=4&transport=polling" });
    await ask("/socket.io/", "get", { headers: {}, at: "/socket.io/?EIO=4&transport=polling&sid=gone", status: 400 });
    await ask("/disconnect", "post", { body: { user: "8" } });
    await ask("/revoke", "post", { body: { user: "7", for: "1m" } });
    await ask("/reload", "post", { body: { node: "00000000" }, status: 409 });
    await ask("/reload", "post", {});
    await ask("/drain", "post", { body: { node: "00000000" }, status: 409 });
    await ask("/drain", "post", { body: { over: "0s" } });
    await ask("/cluster", "get");
    await ask("/health", "get", { status: 503 });
  });

  scenario("what a request may hold is described as it is read", async () => {
    const schemaOf = (template) => ajv.compile(api.paths[template].post.requestBody.content["application/json"].schema);
    for (const [template, good, bad] of [
      ["/publish", [{ room: "a", event: "e" }, { rooms: ["a"], event: "e", args: [1] }, { events: [{ room: "a", event: "e" }] }], [{ event: "e" }, { room: 7, event: "e" }, { room: "a", event: "e", datas: 1 }]],
      ["/join", [{ user: 7, room: "a" }, { in: "a", rooms: ["b"], namespace: "/chat" }], [{ usr: "7" }, { user: "7", rooms: [] }]],
      ["/drain", [{}, { over: "1s" }, { node: "0a" }], [{ ovr: "1s" }]],
      ["/revoke", [{ user: "7", for: "1h" }, { jti: "a" }], [{ user: true }]],
    ]) {
      const valid = schemaOf(template);
      for (const body of good) assert.ok(valid(body), `${template} ${JSON.stringify(body)}: ${ajv.errorsText(valid.errors)}`);
      for (const body of bad) assert.ok(!valid(body), `${template} ${JSON.stringify(body)}`);
    }
  });
});
