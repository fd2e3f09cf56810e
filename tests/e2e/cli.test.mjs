// The command line: check, token, publish, health, and the environment.
import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { KEY, SECRET } from "../harness/config.mjs";
import { roomcast } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { scenario, suite } from "../harness/scenario.mjs";

function file(keep, text) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-cli-"));
  keep({ close: () => fs.rmSync(directory, { recursive: true }) });
  fs.writeFileSync(path.join(directory, "c.toml"), text);
  return path.join(directory, "c.toml");
}

suite("command line", () => {
  scenario("token, publish and health work with a running node", async ({ node, ws }) => {
    const one = await node();
    const config = ["--config", path.join(one.directory, "roomcast.toml")];
    const made = await roomcast(["token", "--user", "7", "--room", "team:blue", "--claim", "plan=pro", "--ttl", "1h", ...config]);
    assert.equal(made.code, 0, made.output);
    const token = made.stdout.trim();
    const claims = JSON.parse(Buffer.from(token.split(".")[1], "base64url"));
    assert.deepEqual([String(claims.sub), claims.rooms, claims.plan], ["7", ["team:blue"], "pro"]);
    const client = await ws(one, { token }).welcomed();
    const sent = await roomcast(["publish", "--room", "team:blue", "--event", "e", "--data", '{"n":9007199254740993}', ...config]);
    assert.equal(sent.code, 0, sent.output);
    await client.event("e");
    assert.ok(client.texts.some((text) => text.includes('{"n":9007199254740993}')));
    assert.notEqual((await roomcast(["publish", "--room", "", "--event", "e", "--data", "1", ...config])).code, 0);
    assert.equal((await roomcast(["health", ...config])).code, 0);
    await one.stop();
    const elsewhere = ["--listen", `127.0.0.1:${one.port}`];
    assert.equal((await roomcast(["health", ...elsewhere])).code, 1);
  });

  scenario("without a node, a command says what to do", async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    for (const args of [["publish", "--room", "r", "--event", "e"], ["nodes"], ["tail", "r"]]) {
      const { code, output } = await roomcast([...args, "--url", url, "--key", KEY]);
      assert.equal(code, 1);
      assert.match(output, /Connection refused.*start the node there, or name another with --url/, args[0]);
    }
  });

  scenario("check: reports every mistake with its place, masks secrets, and exits with 0 or 2", async ({ keep }) => {
    const good = file(keep, `[auth]\nsecret = "${SECRET}"\n[publish]\nkeys = ["${KEY}"]\n`);
    const fine = await roomcast(["check", "--config", good]);
    assert.equal(fine.code, 0, fine.output);
    assert.ok(!fine.output.includes(SECRET) && !fine.output.includes(KEY), "secrets are masked");
    const bad = file(keep, `colour = "red"\nlisten = "nowhere"\n[auth]\nsecret = "short"\nleeway = "soon"\n[socketio]\nping_intervall = "25s"\n[[rooms]]\nmatch = "a"\njoin = "maybe"\n`);
    for (const command of ["check", "serve"]) {
      const refused = await roomcast([command, "--config", bad]);
      assert.equal(refused.code, 2, `${command}: ${refused.output}`);
      for (const place of ["colour", "listen", "secret", "leeway", "ping_intervall", "join"]) assert.ok(refused.output.includes(place), `${place}: ${refused.output}`);
      assert.ok(!refused.output.includes('"short"'), "a bad secret is masked too");
    }
    assert.equal((await roomcast(["serve", "--config", "/no/such/file.toml"])).code, 2);
    assert.equal((await roomcast(["serve", "--no-such-flag"])).code, 2);
  });

  scenario("flags override the environment, which overrides the file; a taken port is exit code 1", async ({ node, ws, keep }) => {
    const taken = await node();
    const config = file(keep, `listen = "127.0.0.1:1"\n[auth]\nsecret = "a file secret of more than thirty-two bytes"\n[publish]\nkeys = ["${KEY}"]\n`);
    const env = { JWT_SECRET: SECRET, ROOMCAST_SOCKETIO__PING_INTERVAL: "7s" };
    const refused = await roomcast(["serve", "--config", config, "--listen", `127.0.0.1:${taken.port}`], env);
    assert.equal(refused.code, 1, refused.output);
    assert.match(refused.output, /in use|bind/i);
    const checked = await roomcast(["check", "--config", config], env);
    assert.match(checked.output, /7s|7000/);
    const token = (await roomcast(["token", "--user", "7"], { JWT_SECRET: SECRET })).stdout.trim();
    await ws(taken, { token }).welcomed();
  });
});
