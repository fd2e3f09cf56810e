// The files that `roomcast init --express` writes work unchanged: the configuration, the secrets and the helper.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { freePort } from "../harness/port.mjs";
import { roomcast } from "../harness/node.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

/** A folder below tests/, so that the helper finds express. */
function folder() {
  return fs.mkdtempSync(path.join(import.meta.dirname, "../.init-"));
}

function variables(file) {
  const lines = fs.readFileSync(file, "utf8").split("\n").filter((line) => line && !line.startsWith("#"));
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]));
}

suite("roomcast init", () => {
  scenario("the Express helper answers joins and publishes to a stock client", async ({ node, io, keep }) => {
    const directory = folder();
    keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
    assert.equal((await roomcast(["init", "--express", "--dir", directory])).code, 0);
    const env = variables(path.join(directory, ".env"));
    const [port, backendPort] = [await freePort(), await freePort()];
    const started = await node({}, {
      port,
      file: path.join(directory, "roomcast.toml"),
      env: { ...env, PORT: String(port), ROOMCAST_BACKEND__URL: `http://127.0.0.1:${backendPort}/roomcast` },
    });

    Object.assign(process.env, env, { ROOMCAST_URL: started.url });
    const { default: express } = await import("express");
    const { publish, roomcast: webhook } = await import(pathToFileURL(path.join(directory, "roomcast.mjs")));
    const app = express();
    app.use("/roomcast", webhook({ join: ({ user, room }) => user === "7" && room === "chat:42" }));
    const server = app.listen(backendPort, "127.0.0.1");
    keep({ close: () => server.close() });

    const config = path.join(directory, "roomcast.toml");
    const token = (await roomcast(["token", "--user", "7", "--config", config], env)).stdout.trim();
    const client = io(started, { auth: { token } });
    await client.connected();
    const join = (chatId) => client.socket.timeout(20_000).emitWithAck("join_chat", { chatId });
    assert.deepEqual(await join("42"), { success: true });
    assert.equal((await join("43")).success, false);

    const received = new Promise((resolve) => client.socket.once("new_message", resolve));
    assert.match(await publish("chat:42", "new_message", { text: "hi" }), /^[0-9a-f]+-\d+-\d+$/);
    assert.deepEqual(await received, { text: "hi" });

    const forged = await fetch(`http://127.0.0.1:${backendPort}/roomcast`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-roomcast-signature": `t=${Math.floor(Date.now() / 1000)},v1=${"0".repeat(64)}` },
      body: JSON.stringify({ type: "join", user: "7", room: "chat:42" }),
    });
    assert.equal(forged.status, 401);
  });
});
