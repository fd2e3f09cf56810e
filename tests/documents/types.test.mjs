// The TypeScript of the documents compiles against the packages that it names.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { ROOT, assertAllRun, snippet } from "./snippets.mjs";

const SERVER = "packages/server/README.md";
const TSC = path.join(ROOT, "tests/node_modules/.bin/tsc");
const OPTIONS = {
  target: "ES2022",
  module: "NodeNext",
  strict: true,
  noEmit: true,
  allowJs: true,
  skipLibCheck: true,
  experimentalDecorators: true,
  emitDecoratorMetadata: true,
  types: ["node"],
  paths: { "@roomcast/server": [path.join(ROOT, "packages/server/src/public.ts")] },
};
const MESSAGE = "interface Message { id: number; text: string }\n";

after(() => assertAllRun("types.test.mjs"));

/** Compiles the files in a folder below tests/, so that the compiler finds the packages; resolves with what it says. */
async function compile(files) {
  const directory = fs.mkdtempSync(path.join(import.meta.dirname, ".documents-"));
  try {
    for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(directory, name), text);
    fs.writeFileSync(path.join(directory, "package.json"), '{ "type": "module" }');
    fs.writeFileSync(path.join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions: OPTIONS, files: Object.keys(files) }));
    return await new Promise((resolve) => execFile(TSC, ["-p", directory], (_, stdout, stderr) => resolve(stdout + stderr)));
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

test("docs/from-socketio.md: the Nest provider", async () => {
  const files = {
    "messages.ts": `import { Injectable, type FactoryProvider } from "@nestjs/common";
      import { DataSource, EntityManager, Column, Entity, PrimaryGeneratedColumn } from "typeorm";
      import { Outbox, Roomcast, type OutboxStore } from "@roomcast/server";
      @Entity() class Message { @PrimaryGeneratedColumn() id!: number; @Column() conversationId!: number; @Column() text!: string }
      interface Events { new_message: Message }
      declare function outboxTable(database: DataSource): OutboxStore<EntityManager>;
      ${snippet("docs/from-socketio.md", "ts", "FactoryProvider")}`,
  };
  assert.equal(await compile(files), "");
  const broken = { "messages.ts": files["messages.ts"].replace('event: "new_message"', 'event: "old_message"') };
  assert.match(await compile(broken), /old_message/, "the compiler checks the names of events");
});

test(`${SERVER}: types that client and server share`, async () => {
  const files = {
    "events.ts": `${MESSAGE}${snippet(SERVER, "ts", "export interface Events")}`,
    "usage.ts": `import type { Events } from "./events.js";
      import { io, type Socket } from "socket.io-client";
      import { Roomcast, createWebhook, type ListenEvents } from "@roomcast/server";
      interface ClientEvents { send_message: (text: string) => void }
      const url = "";
      ${snippet(SERVER, "ts", "new Roomcast<Events>").replace("{ … }", "{ send_message: ({ args: [text] }) => ({ ack: [text.length] }) }")}
      export const used = [roomcast, webhook, socket];`,
  };
  assert.equal(await compile(files), "");
});
