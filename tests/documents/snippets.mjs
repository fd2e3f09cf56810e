// The code blocks of the pages for users. Each is run by a test of this folder, or `ELSEWHERE` says where.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

export const ROOT = path.resolve(import.meta.dirname, "../..");

/** README.md, all of docs/, and the packages' pages. */
export const PAGES = [
  "README.md",
  ...fs.readdirSync(path.join(ROOT, "docs"), { recursive: true }).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`),
  ...fs.readdirSync(path.join(ROOT, "packages")).map((name) => `packages/${name}/README.md`),
].filter((page) => fs.existsSync(path.join(ROOT, page))).sort();

/** The blocks of a page, in order: `{ page, language, code, heading }`. Blocks without a language are pictures and traces. */
export function snippetsOf(page) {
  const snippets = [];
  let heading = "";
  let open;
  for (const line of fs.readFileSync(path.join(ROOT, page), "utf8").split("\n")) {
    const fence = /^```(\S*)/.exec(line);
    if (fence && open) {
      snippets.push({ ...open, code: `${open.lines.join("\n")}\n` });
      open = undefined;
    } else if (fence) open = { page, heading, language: fence[1], lines: [] };
    else if (open) open.lines.push(line);
    else if (line.startsWith("#")) heading = line.replace(/^#+ /, "");
  }
  return snippets;
}

const taken = new Set();
const named = (page, text) => `${page}: ${text}`;

/** The one block of a page in a language that contains `text`. */
export function snippet(page, language, text) {
  taken.add(named(page, text));
  const found = snippetsOf(page).filter((block) => block.language === language && block.code.includes(text));
  if (found.length !== 1) throw new Error(`${page}: ${found.length} blocks in ${language} contain ${text}`);
  return found[0].code;
}

/** At the end of a test file: it has run what `RUN_BY` says of it, no more and no less. */
export function assertAllRun(file) {
  if (process.execArgv.some((argument) => argument.startsWith("--test-name-pattern"))) return;
  const said = RUN_BY[file].map(([page, text]) => named(page, text));
  assert.deepEqual([...taken].sort(), said.sort());
}

/** Languages whose blocks are checked as a kind, whatever the page; of some, one test asserts that no block is left out. */
export const KINDS = {
  "": "pictures and recorded bytes",
  text: "pictures",
  toml: "tests/documents.rs loads every configuration",
  acl: "tests/e2e/redis_rights.test.mjs, tests/e2e/backend_stream.test.mjs",
  nginx: "tests/proxies/run.sh",
  haproxy: "tests/proxies/run.sh",
  caddyfile: "tests/proxies/run.sh",
  yaml: "formats.test.mjs parses it; tests/deploy runs what is in deploy/",
};

const GUIDE = "docs/guides/authorize-rooms.md";
const SERVER = "packages/server/README.md";

/** Blocks that a test of this folder runs: page and a text of the block, by file. */
export const RUN_BY = {
  "clients.test.mjs": [
    ["README.md", "join_chat"],
    ["docs/clients.md", "connect_error"],
    ["docs/clients.md", "new WebSocket"],
    ["docs/clients.md", "new EventSource"],
    ["docs/protocol/sse.md", "new EventSource"],
    ["docs/protocol/websocket.md", "function connect"],
    ["docs/guides/from-centrifugo.md", "socket.recovered"],
    ["docs/guides/from-centrifugo.md", "new WebSocket"],
    ["docs/guides/from-pusher.md", '"subscribe", "private'],
    ["docs/guides/from-pusher.md", "new EventSource"],
    ["docs/guides/mobile.md", "new WebSocket"],
    ["docs/guides/mobile.md", "react-native"],
    ["docs/guarantees.md", "loadStateFromYourApi"],
    ["docs/limits.md", "rate_limited"],
    ["docs/from-socketio.md", "realtime.onRoomcast"],
  ],
  "walk.test.mjs": ["cargo build", "set -a", "curl -N", "curl -s http://localhost:8080/publish", "join_chat"].map((has) => ["README.md", has]),
  "commands.test.mjs": [
    ["docs/http-api.md", "export ROOMCAST_URL"],
    ["docs/presence.md", "/rooms/chat:42"],
    [GUIDE, "/leave"],
    [GUIDE, "/join"],
    ["docs/guides/from-centrifugo.md", '"room":"chat:42"'],
    ["docs/guides/from-pusher.md", '"private-orders-42"'],
    ["docs/protocol/sse.md", "curl -N"],
    ["docs/configuration.md", "roomcast check"],
    ["docs/http-api.md", "/explain?user=7"],
    ["docs/http-api.md", "/trace?user=7"],
    ["docs/rotation.md", "roomcast reload"],
    ["docs/upgrading.md", "roomcast nodes"],
    ["docs/troubleshooting.md", "--url $node"],
    ["docs/troubleshooting.md", "roomcast trace"],
    ["docs/cli.md", "roomcast init"],
  ],
  "types.test.mjs": [
    ["docs/from-socketio.md", "FactoryProvider"],
    [SERVER, "export interface Events"],
    [SERVER, "new Roomcast<Events>"],
  ],
  "formats.test.mjs": [
    ["docs/http-api.md", '"event":"new_message","data"'],
    ["docs/http-api.md", '"verdict":"joined_later"'],
    ["docs/http-api.md", '"result":"applied"'],
    ["docs/http-api.md", '"rooms":["conversation:42"]'],
    ["docs/http-api.md", '"users":["7","8"]'],
    ["docs/http-api.md", '"online":false'],
    ["docs/http-api.md", '"lag_ms"'],
    ["docs/http-api.md", '{"rooms":[{'],
    ["docs/http-api.md", '"last_refusal"'],
    ["docs/http-api.md", '"service":"roomcast"'],
    ["docs/http-api.md", "reserved_event"],
    ["docs/http-api.md", '"for":"1h"'],
    ["docs/backend.md", '"send_message"'],
    [GUIDE, '"rooms":["project:12"'],
  ],
  "backends.test.mjs": [
    [GUIDE, "express()"],
    [GUIDE, "FastAPI()"],
    [GUIDE, "<?php"],
    ["docs/backend.md", "createWebhook"],
    ["docs/backend.md", "timingSafeEqual"],
    [SERVER, "pg_try_advisory_lock"],
    [SERVER, "CREATE TABLE"],
    [SERVER, "publishAll"],
    [SERVER, "send_message: async"],
    ["docs/guides/from-pusher.md", "roomcast.publish"],
    ["docs/guides/serverless.md", "await fetch("],
  ],
};

/** Blocks that a test elsewhere runs, or that cannot run here: page, a text of the block, and where or why. */
export const ELSEWHERE = [
  ["packages/console/README.md", "npm run build", "tests/console builds it"],
  ["README.md", "new Outbox(new Roomcast()", "tests/packages/documents.test.mjs"],
  ["README.md", "-- demo", "cargo builds in every run; tests/dist runs the packages and the image; tests/e2e/demo.test.mjs"],
  ["packages/roomcast/README.md", "npx roomcast demo", "tests/dist/npm.test.mjs"],
  ["packages/roomcast/README.md", "pip install roomcast", "tests/dist/pypi.test.mjs"],
  ["packages/server/README.md", "// api.js", "tests/packages/documents.test.mjs"],
  ["packages/server/README.md", "npm install", "tests/packages/packed.test.mjs installs the packed package"],
  ["docs/from-socketio.md", "// before", "tests/packages/documents.test.mjs"],
  ["docs/from-socketio.md", 'case "typing"', "tests/e2e/migration.test.mjs does the same with a real Socket.IO server"],
  ["docs/backend.md", "xautoclaim", "tests/e2e/backend_stream.test.mjs"],
  ...["// app/chats", "// app/realtime", "// app/useRealtime", "// app/roomcast"].map((has) => ["docs/guides/serverless.md", has, "tests/examples/nextjs.test.mjs"]),
  ["docs/telemetry.md", "traceparent: 00-", "tests/e2e/telemetry.test.mjs publishes with this header"],
  ["docs/scaling.md", "zlib.crc32", "tests/e2e/partitions.test.mjs"],
  ["docs/scaling.md", "await publish", "tests/e2e/partitions.test.mjs"],
  ["docs/scaling.md", "const eventOf", "tests/e2e/partitions.test.mjs"],
  ["docs/runbooks.md", "node=http", "tests/deploy/documents.test.mjs"],
  ["docs/troubleshooting.md", "node=http", "tests/deploy/documents.test.mjs"],
  ["docs/troubleshooting.md", "docker compose logs", "needs Docker"],
  ["docs/deploy.md", "docker build -t roomcast .", "tests/dist/image.test.mjs builds and runs the image with Podman"],
  ["docs/releasing.md", "make dist ", "tests/dist runs what it builds"],
  ["docs/releasing.md", "cosign verify", "checks what a release on GitHub published"],
  ["docs/deploy.md", "docker compose", "tests/deploy/compose.test.mjs runs the services without Docker"],
  ["docs/deploy.md", "install -m 755", "tests/deploy/systemd.test.mjs checks the unit"],
  ["docs/kubernetes.md", "docker build", "needs a cluster; tests/deploy/kubernetes.test.mjs renders and validates"],
  ["docs/guides/from-centrifugo.md", "localhost:8000/api/publish", "another product's, to compare"],
  ["docs/guides/from-centrifugo.md", "centrifuge.newSubscription", "another product's, to compare"],
  ["docs/guides/from-pusher.md", "pusher.trigger", "another product's, to compare"],
  ["docs/guides/from-pusher.md", "pusher.subscribe", "another product's, to compare"],
];
