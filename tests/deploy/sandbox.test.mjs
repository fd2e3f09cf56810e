// A node works where nothing can be written and nothing is allowed: what the systemd unit, the Compose file and the chart ask for.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { configure, toml } from "../harness/config.mjs";
import { BINARY } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { published } from "../harness/publish.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { withDirectory } from "./tools.mjs";

scenario("a node without rights and with a read-only root serves and drains", async (s) => {
  await withDirectory(async (directory) => {
    const [port, redis] = [await freePort(), await s.redis()];
    const file = path.join(directory, "roomcast.toml");
    fs.chmodSync(directory, 0o755);
    fs.writeFileSync(file, toml({ listen: `127.0.0.1:${port}`, ...configure({ redis: { url: redis.url } }) }));
    const binary = path.join(import.meta.dirname, "sandbox.sh");
    const node = await s.node({}, { port, file, binary, env: { ROOMCAST_BIN: BINARY } });

    const status = fs.readFileSync(`/proc/${node.process.pid}/status`, "utf8");
    const value = (name) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1];
    assert.deepEqual([value("Name"), value("Uid"), value("NoNewPrivs")], ["roomcast", "65532", "1"]);
    assert.match(value("CapEff") + value("CapBnd"), /^0+$/);

    const client = await s.ws(node, { token: tokenFor("7") }).welcomed();
    await client.join("room:a");
    const io = await s.io(node, { token: tokenFor("8") }).connected();
    await io.join("room:a");
    await published(node, { room: "room:a", event: "tick", data: 1 });
    assert.equal((await client.event("tick")).data, 1);
    assert.deepEqual(await io.event("tick"), [1]);
    // Memory, files and time of the process, which it reads about itself.
    assert.ok((await node.metric("process_resident_memory_bytes")) > 0);
    assert.deepEqual(await node.stop(), { code: 0, signal: null });
  });
});
