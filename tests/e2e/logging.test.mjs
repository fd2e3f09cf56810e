// Logging is best effort: if stderr is full, closed or not read, log lines are dropped and nothing else happens.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { until } from "../harness/deadline.mjs";
import { BINARY } from "../harness/node.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const DROPPED = "roomcast_log_lines_dropped_total";
// About a thousand lines a request, so that pipes and queues fill quickly.
const chatty = { log: { level: "trace" } };

/** A node with this descriptor as stderr, which this process then closes. */
async function nodeOn(node, descriptor, settings) {
  const started = await node(settings, { stderr: descriptor });
  fs.closeSync(descriptor);
  return started;
}

/** Connects clients and publishes until this many log lines were dropped. */
async function makeLines(one, ws, lines) {
  await until(async () => {
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    await published(one, { events: Array.from({ length: 500 }, () => ({ room: "user:7", event: "e", data: 1 })) });
    client.close();
    return (await one.metric(DROPPED)) >= lines;
  }, `${lines} dropped lines`, 60_000);
}

/** A named pipe; `reader` reads nothing until the test starts it. */
function pipe(directory) {
  const name = path.join(directory, "stderr");
  assert.equal(spawnSync("mkfifo", [name]).status, 0);
  const reader = fs.openSync(name, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  return { reader, writer: fs.openSync(name, fs.constants.O_WRONLY) };
}

const temporary = (keep) => {
  const directory = fs.mkdtempSync("/tmp/roomcast-logging-");
  keep({ close: () => fs.rmSync(directory, { recursive: true, force: true }) });
  return directory;
};

suite("logging", () => {
  scenario("on a full disk, log lines are dropped and counted, and the node works on", async ({ node, ws }) => {
    const one = await nodeOn(node, fs.openSync("/dev/full", "w"), chatty);
    await makeLines(one, ws, 10);
    assert.equal((await one.get("/health")).status, 200);
  });

  scenario("when the reader of stderr closes its end, as `2>&1 | head -1` does, log lines are dropped, and the node works on", async ({ node, ws, serve }) => {
    const { reader, writer } = pipe(temporary(serve));
    const one = await nodeOn(node, writer, chatty);
    fs.closeSync(reader);
    await makeLines(one, ws, 10);
    assert.equal((await one.get("/health")).status, 200);
  });

  scenario("a pipe that nobody reads delays neither the node nor its stop; once it is read, the log says how many lines were dropped", async ({ node, ws, serve }) => {
    const { reader, writer } = pipe(temporary(serve));
    serve({ close: () => fs.closeSync(reader) });
    const one = await nodeOn(node, writer, chatty);
    await makeLines(one, ws, 1_000);
    assert.equal((await one.get("/health/live")).status, 200);
    const chunk = Buffer.alloc(1 << 16);
    let tail = "";
    const read = () => {
      try {
        tail = tail.slice(-10_000) + chunk.toString("latin1", 0, fs.readSync(reader, chunk));
      } catch (error) {
        assert.equal(error.code, "EAGAIN");
      }
      return /log lines were lost: stderr did not take them.* lines=\d+/.test(tail.replaceAll(/\x1b\[[0-9;]*m/g, ""));
    };
    await until(read, () => `an announcement; got ${tail.slice(-500)}`, 60_000);
    await makeLines(one, ws, (await one.metric(DROPPED)) + 1);
    assert.equal((await one.stop("SIGTERM", 15_000)).code, 0);
  });

  scenario("commands whose output is not read exit without a panic", async ({ serve }) => {
    const directory = temporary(serve);
    const file = path.join(directory, "roomcast.toml");
    fs.writeFileSync(file, '[auth]\nsecret = "a secret of at least thirty-two bytes"\n');
    for (const line of ["check", "token --user 7", "--help", "check --nonsense", "serve --listen nonsense"]) {
      for (const pipeline of ["2>&1 | true", ">/dev/full 2>&1", ">&- 2>&-", "2>&1 | head -1"]) {
        const shell = `( "${BINARY}" --config "${file}" ${line}; echo $? > "${directory}/code" ) ${pipeline}`;
        const { stderr } = spawnSync("sh", ["-c", shell], { encoding: "utf8", timeout: 60_000 });
        const code = Number(fs.readFileSync(`${directory}/code`, "utf8"));
        assert.ok(code <= 2 && !/panicked/.test(stderr), `${shell}: ${code} ${stderr}`);
      }
    }
  });
});
