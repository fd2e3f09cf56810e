// The commands of the documents, as they stand there, against a node.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after } from "node:test";
import { KEY, SECRET } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { BINARY_FOLDER, Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { assertAllRun, snippet } from "./snippets.mjs";

const rooms = ["conversation:<id>", "chat:<id>", "lobby:<id>"].map((match) => ({ match, join: "allow" }));


/** Starts the commands; the first that fails ends them. `answered` waits for a text in what they print. */
function start(s, commands, node, env = {}, directory = os.tmpdir()) {
  const local = node ? commands.replaceAll("http://localhost:8080", node.url).replace("ROOMCAST_PUBLISH__KEYS=…", "ROOMCAST_PUBLISH__KEYS") : commands;
  const daemon = new Daemon(["-euo", "pipefail", "-c", `cd ${directory}\n${local}`], {
    PATH: `${BINARY_FOLDER}:${process.env.PATH}`,
    ROOMCAST_PUBLISH__KEYS: KEY,
    ...(node && { ROOMCAST_URL: node.url }),
    ...env,
  }, "bash");
  s.keep({ close: () => daemon.exit || daemon.signal("SIGKILL") });
  return Object.assign(daemon, {
    answered: (text) => until(() => daemon.output.includes(text), () => `${text} in ${daemon.output}`, 30_000),
    ended: async () => {
      const { code } = await daemon.exited;
      assert.equal(code, 0, daemon.output);
      return daemon.output;
    },
  });
}

suite("the commands of the documents", () => {
  after(() => assertAllRun("commands.test.mjs"));
  scenario("docs/http-api.md: publish, join, ask", async (s) => {
    const node = await s.node({ rooms });
    const [one] = await Promise.all(["7", "7"].map((user) => s.ws(node, { token: tokenFor(user) }).welcomed()));
    const output = await start(s, snippet("docs/http-api.md", "sh", "export ROOMCAST_URL"), node).ended();
    for (const answer of ['"offset":"', '{"sessions":2}', '"online":true']) assert.ok(output.includes(answer), output);
    await one.message(({ type, room }) => type === "joined" && room === "conversation:42");
  });

  scenario("docs/presence.md: who is online, who is in a room", async (s) => {
    const node = await s.node({ rooms });
    await (await s.ws(node, { token: tokenFor("7") }).welcomed()).join("chat:42");
    const output = await start(s, snippet("docs/presence.md", "sh", "/rooms/chat:42"), node).ended();
    for (const answer of ['"online":true', '"users":["7"]']) assert.ok(output.includes(answer), output);
  });

  scenario("docs/guides: put a user into a room and out, publish", async (s) => {
    const node = await s.node({ rooms });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    const page = "docs/guides/authorize-rooms.md";
    await start(s, snippet(page, "sh", "/join"), node).answered('{"sessions":1}');
    await client.message(({ type, room }) => type === "joined" && room === "conversation:42");
    await start(s, snippet(page, "sh", "/leave"), node).answered('{"sessions":1}');
    await client.message(({ type, room }) => type === "left" && room === "conversation:42");
    await client.join("chat:42");
    await start(s, snippet("docs/guides/from-centrifugo.md", "sh", '"room":"chat:42"'), node).answered('"offset":"');
    assert.deepEqual((await client.event("message")).data, { text: "hi" });
    await start(s, snippet("docs/guides/from-pusher.md", "sh", '"private-orders-42"'), node).answered('"offset":"');
  });

  scenario("docs/protocol/sse.md: listen with curl", async (s) => {
    const node = await s.node({ rooms });
    const curl = start(s, snippet("docs/protocol/sse.md", "sh", "curl -N"), node, { TOKEN: tokenFor("7") });
    const members = async () => (await node.get("/rooms/lobby:1", { authorization: `Bearer ${KEY}` })).json().connections;
    await until(async () => (await members()) === 1, "curl in the room");
    await start(s, `curl -s "$ROOMCAST_URL/publish" -H "Authorization: Bearer $ROOMCAST_PUBLISH__KEYS" -d '{"room":"lobby:1","event":"news","data":1}'`, node).ended();
    await curl.answered("event: news");
  });

  scenario("docs/http-api.md, docs/troubleshooting.md: explain and trace", async (s) => {
    const node = await s.node({ rooms });
    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    await client.join("conversation:42");
    await client.join("chat:42");
    // Where the node is: what its configuration says to commands on its own machine.
    const env = { key: `Authorization: Bearer ${KEY}`, node: node.url, ROOMCAST_LISTEN: `127.0.0.1:${node.port}` };
    const traces = [["docs/http-api.md", "/trace?user=7"], ["docs/troubleshooting.md", "roomcast trace"]].map(([page, has]) => start(s, snippet(page, "sh", has), node, env));
    for (const trace of traces) await trace.answered("opened");
    const offset = await published(node, { rooms: ["chat:42", "conversation:42"], event: "news" });
    await client.event("news");
    for (const trace of traces) await trace.answered("news");
    for (const [page, has] of [["docs/http-api.md", "/explain?user=7"], ["docs/troubleshooting.md", "--url $node"]]) {
      const commands = snippet(page, "sh", has).replace("e24ca728-1795696712099-0", offset);
      assert.match(await start(s, commands, node, env).ended(), /delivered/, page);
    }
  });

  scenario("docs/upgrading.md: check with the new binary, then look at the nodes", async (s) => {
    const node = await s.node({ rooms, on: [], backend: undefined });
    const commands = snippet("docs/upgrading.md", "sh", "roomcast nodes").replaceAll("/etc/roomcast/roomcast.toml", node.file);
    assert.match(await start(s, commands, node, { ROOMCAST_LISTEN: `127.0.0.1:${node.port}` }).ended(), /roomcast: OK[^]*VERSION/i);
  });

  scenario("docs/rotation.md: check, then reload", async (s) => {
    const node = await s.node({ rooms });
    fs.appendFileSync(node.file, '[[rooms]]\nmatch = "more:*"\njoin = "allow"\n');
    const commands = snippet("docs/rotation.md", "sh", "roomcast reload").replaceAll("/etc/roomcast/roomcast.toml", node.file);
    assert.match(await start(s, commands, node).ended(), /rooms: 3 rules -> 4 rules/);
  });

  scenario("docs/configuration.md: check, then serve", async (s) => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-documents-"));
    s.keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
    fs.writeFileSync(path.join(directory, "roomcast.toml"), `listen = "127.0.0.1:${await freePort()}"\n`);
    const commands = start(s, snippet("docs/configuration.md", "sh", "roomcast check").replace("roomcast serve", "exec roomcast serve"), null, { JWT_SECRET: SECRET }, directory);
    await commands.answered("OK");
    await commands.answered("listening");
    await commands.stop("SIGTERM", 30_000);
  });

  scenario("docs/cli.md: from nothing to a running node, and what operators ask it", async (s) => {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-documents-"));
    s.keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
    const port = await freePort();
    const onPort = (text) => text.replace("roomcast init ", `roomcast init; sed -i s/8080/${port}/ roomcast.toml #`);
    const [setUp, operate] = snippet("docs/cli.md", "sh", "roomcast init").split("\n\n");
    const serving = start(s, onPort(setUp).replace("roomcast serve", "exec roomcast serve"), null, {}, directory);
    await serving.answered("listening");
    // `top`, `trace` and `tail` go on until they are ended, and `drain` ends what the other commands ask; tests/e2e has both.
    const commands = operate.replace(/^roomcast (top|trace|tail|drain) .*$/gm, "");
    const output = await start(s, `set -a; . ./.env; set +a\n${commands}`, null, { ROOMCAST_URL: `http://127.0.0.1:${port}` }, directory).ended();
    for (const answer of ["eyJ", "offset", "ready"]) assert.ok(output.includes(answer), output);
    await serving.stop("SIGTERM", 30_000);
  });
});
