// Runs the parts of an example beside each other until Ctrl-C: roomcast, and the backend that it asks.
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import path from "node:path";
import { createInterface } from "node:readline";

const READY_WITHIN_MS = 60_000;
const STOP_WITHIN_MS = 10_000;

const parts = [];
let stopping = false;
process.on("exit", () => parts.forEach((part) => part.kill("SIGKILL")));
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

/** Starts a part, whose lines are printed with its name in front. When one ends, all do. */
export function run(name, command, args, { cwd, env }) {
  const part = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [part.stdout, part.stderr]) {
    createInterface({ input: stream }).on("line", (line) => console.log(`[${name}] ${line}`));
  }
  part.ended = new Promise((resolve) => part.once("close", resolve).once("error", resolve));
  part.ended.then((how) => {
    if (how instanceof Error) console.error(`[${name}] ${how.message}`);
    stop(1);
  });
  parts.push(part);
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
  for (const part of parts) part.kill("SIGTERM");
  setTimeout(() => parts.forEach((part) => part.kill("SIGKILL")), STOP_WITHIN_MS).unref();
  await Promise.all(parts.map(({ ended }) => ended));
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
