// Runs the parts of an example beside each other until Ctrl-C: roomcast, and the backend that it asks.
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import path from "node:path";
import { createInterface } from "node:readline";

const READY_WITHIN_MS = 60_000;
const STOP_WITHIN_MS = 10_000;

const parts = [];
let ready = false;
let stopping = false;
process.on("exit", () => parts.forEach(({ child }) => child?.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop(0));

// The three secrets that roomcast and the backend share. Made up here unless given, so nothing is signed with a key from a repository.
const secret = (name) => [name, process.env[name] || randomBytes(32).toString("base64url")];
export const secrets = Object.fromEntries(["JWT_SECRET", "ROOMCAST_PUBLISH__KEYS", "ROOMCAST_BACKEND__SECRET"].map(secret));

/** ROOMCAST_BIN, or the release binary of the roomcast that the examples are part of. */
export function roomcastBinary() {
  if (process.env.ROOMCAST_BIN) return process.env.ROOMCAST_BIN;
  const root = path.join(import.meta.dirname, "..");
  console.log("building roomcast; the first time takes some minutes (ROOMCAST_BIN names a built one)");
  execFileSync("cargo", ["build", "--release", "--locked"], { cwd: root, stdio: "inherit" });
  const about = execFileSync("cargo", ["metadata", "--format-version=1", "--no-deps"], { cwd: root });
  return path.join(JSON.parse(about).target_directory, "release/roomcast");
}

/** Adds a part and starts it. Its lines are printed with its name in front. Until all parts answer, the end of one ends all. */
export function run(name, command, args, { cwd, env }) {
  const part = { name };
  part.start = () => {
    const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => console.log(`[${name}] ${line}`));
    }
    part.child = child;
    part.ended = new Promise((resolve) => child.once("close", resolve).once("error", resolve));
    part.ended.then((how) => {
      part.child = undefined;
      if (how instanceof Error) console.error(`[${name}] ${how.message}`);
      if (!ready) stop(1);
      else if (!stopping) console.log(`\n  ${name} has stopped. "${name}" and Enter starts it again.\n`);
    });
  };
  part.start();
  parts.push(part);
}

/** Tells where the page is. From here on each part can be stopped and started alone. */
export function announce(page) {
  ready = true;
  console.log(`\n  Chat:  ${page}   (open it in two tabs; Ctrl-C ends it)`);
  console.log(`  To stop one part alone, and to start it again, type ${parts.map(({ name }) => name).join(" or ")}, and Enter.\n`);
  createInterface({ input: process.stdin }).on("line", (line) => {
    const part = parts.find(({ name }) => name === line.trim());
    if (!part || stopping) return;
    if (!part.child) {
      console.log(`  Starting ${part.name}.`);
      part.start();
    } else kill(part);
  });
}

/** Resolves when the part has ended; what hangs is ended by force. */
async function kill({ child, ended }) {
  if (!child) return;
  child.kill("SIGTERM");
  const force = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
  await ended;
  clearTimeout(force);
}

/** Starts roomcast on `port` with an example's file, for pages of `origins` and the backend at `backend`. */
export function runRoomcast(folder, { port, origins, backend }) {
  run("roomcast", roomcastBinary(), ["serve", "--config", path.join(folder, "roomcast.toml")], {
    cwd: folder,
    env: {
      ...secrets,
      ROOMCAST_BACKEND__URL: `${backend}/roomcast`,
      ROOMCAST_LISTEN: `127.0.0.1:${port}`,
      ROOMCAST_CORS__ORIGINS: origins.join(),
      // Not keys of roomcast, which refuses a ROOMCAST_… that it does not know; and PORT is the backend's.
      PORT: undefined,
      ROOMCAST_BIN: undefined,
      ROOMCAST_PORT: undefined,
    },
  });
}

async function stop(code) {
  if (stopping) return;
  stopping = true;
  await Promise.all(parts.map(kill));
  process.exit(code);
}

/** Resolves when `url` answers 200; ends all parts where it does not in time. */
export async function answers(url) {
  const end = Date.now() + READY_WITHIN_MS;
  while (!stopping) {
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok) return;
    if (Date.now() > end) {
      console.error(`${url} did not answer`);
      return stop(1);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await new Promise(() => {}); // stop() ends the process
}
