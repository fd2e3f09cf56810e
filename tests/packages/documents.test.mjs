// The Express code of the documents, as it stands there: a saved message is answered 201 while roomcast is down, and
// published once when it is back.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { KEY } from "../harness/config.mjs";
import { SECRET } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { post } from "../harness/http.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const root = path.join(import.meta.dirname, "../..");
const EXPRESS = 'import express from "express";\nexport const app = express().use(express.json());\n';
const DATABASE = 'import { db, outboxTable } from "./db.mjs";\n';

/** Where the code is, what stands before it where it is a part, and the room and path that it has. */
const DOCUMENTS = [
  { file: "packages/server/README.md", from: "// api.js", room: "chat" },
  { file: "README.md", from: "const outbox =", before: `${EXPRESS}${DATABASE}import { Outbox, Roomcast } from "@roomcast/server";\n`, room: "chat" },
  { file: "docs/from-socketio.md", from: "// after", before: EXPRESS + DATABASE, room: "conversation" },
];

/** The application's database, in memory. */
const DB = `import { MemoryOutboxStore } from "@roomcast/server";
export const outboxTable = new MemoryOutboxStore();
let id = 0;
const saveMessage = async (chatId, text) => ({ id: (id += 1), chatId, conversationId: chatId, text });
export const db = {
  isMember: () => true,
  transaction: (work) => outboxTable.transaction((entries) => work(Object.assign(entries, { saveMessage }))),
};
`;

function block(file, from) {
  const text = fs.readFileSync(path.join(root, file), "utf8");
  const blocks = text.split("\n```js\n").slice(1).map((rest) => rest.split("\n```")[0]);
  const found = blocks.find((code) => code.includes(`${from}`) && code.includes("outbox.add("));
  assert.ok(found, `${file} has code from ${from}`);
  return found.slice(found.indexOf(from)).replaceAll("./db.js", "./db.mjs");
}

suite("documents", () => {
  scenario("the Express code of the documents loses and doubles nothing while roomcast is down", async (scene) => {
    for (const { file, from, before = "", room } of DOCUMENTS) {
      // Below tests/, so that it finds express.
      const directory = fs.mkdtempSync(path.join(import.meta.dirname, ".documents-"));
      scene.keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
      fs.mkdirSync(path.join(directory, "node_modules/@roomcast"), { recursive: true });
      fs.symlinkSync(path.join(root, "packages/server"), path.join(directory, "node_modules/@roomcast/server"));
      fs.writeFileSync(path.join(directory, "db.mjs"), DB);
      fs.writeFileSync(path.join(directory, "api.mjs"), before + block(file, from));

      const port = await freePort();
      Object.assign(process.env, { ROOMCAST_URL: `http://127.0.0.1:${port}`, ROOMCAST_PUBLISH__KEYS: KEY, ROOMCAST_BACKEND__SECRET: SECRET });
      const { app } = await import(pathToFileURL(path.join(directory, "api.mjs")));
      const server = app.listen(0, "127.0.0.1");
      scene.keep({ close: () => (server.closeAllConnections(), server.close()) });
      await until(() => server.listening, "the API");
      const say = async (text) => {
        const answer = await post(`http://127.0.0.1:${server.address().port}/${room}s/42/messages`, { text });
        assert.equal(answer.status, 201, `${file}: ${answer.text}`);
      };

      await say("while it is down");
      const node = await scene.node({ rooms: [{ match: `${room}:<id>`, join: "allow" }], on: [] }, { port, env: { ROOMCAST_URL: process.env.ROOMCAST_URL } });
      const published = (count) => until(async () => (await node.metric('roomcast_events_total{source="http"}')) === count, `${file}: ${count} events`);
      await published(1);
      const client = await scene.sse(node, { token: tokenFor("7"), rooms: [`${room}:42`] }).answered();
      await say("while it is up");
      await client.event("new_message");
      assert.deepEqual(client.eventsOf("new_message").map(({ data }) => JSON.parse(data).text), ["while it is up"]);
      await published(2);
    }
  });
});
