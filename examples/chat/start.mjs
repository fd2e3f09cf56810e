// `npm start`: builds the page, then runs the backend and roomcast beside each other until Ctrl-C.
import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import path from "node:path";
import { createInterface } from "node:readline";

const here = import.meta.dirname;
const { PORT = "3000", ROOMCAST_PORT = "8080", ROOMCAST_BIN } = process.env;
const page = `http://localhost:${PORT}`;
// Not keys of roomcast, which refuses a ROOMCAST_… that it does not know; and PORT is the backend's.
const NOT_ROOMCASTS = Object.fromEntries(
  ["PORT", "ROOMCAST_BIN", "ROOMCAST_PORT"].map((name) => [name, undefined]),
);
const READY_WITHIN_MS = 30_000;
const STOP_WITHIN_MS = 10_000;

// The three secrets that the two share. Made up here unless given, so nothing is signed with a key from a repository.
const secret = (name) => [name, process.env[name] || randomBytes(32).toString("base64url")];
const secrets = Object.fromEntries(["JWT_SECRET", "ROOMCAST_PUBLISH__KEYS", "ROOMCAST_BACKEND__SECRET"].map(secret));

execFileSync("npm", ["run", "build", "--silent"], { cwd: here, stdio: "inherit" });
const roomcastBinary = ROOMCAST_BIN ?? buildRoomcast();

const parts = [];
let stopping = false;
process.on("exit", () => parts.forEach((part) => part.kill("SIGKILL")));
run("roomcast", roomcastBinary, ["serve", "--config", path.join(here, "roomcast.toml")], {
  ...secrets,
  ROOMCAST_BACKEND__URL: `http://127.0.0.1:${PORT}/roomcast`,
  ROOMCAST_LISTEN: `127.0.0.1:${ROOMCAST_PORT}`,
  ROOMCAST_CORS__ORIGINS: [page, `http://127.0.0.1:${PORT}`, "http://localhost:5173"].join(),
  ...NOT_ROOMCASTS,
});
run("backend", process.execPath, [path.join(here, "backend/server.js")], {
  ...secrets,
  ROOMCAST_URL: `http://127.0.0.1:${ROOMCAST_PORT}`,
  ROOMCAST_PUBLIC_URL: `http://localhost:${ROOMCAST_PORT}`,
  PORT,
});
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => stop(0));

await answers(`http://127.0.0.1:${ROOMCAST_PORT}/health`);
await answers(`http://127.0.0.1:${PORT}/health`);
console.log(`\n  Chat:  ${page}   (open it in two tabs; Ctrl-C ends it)\n`);

/** The release binary of the roomcast that this example is part of. */
function buildRoomcast() {
  const root = path.join(here, "../..");
  console.log("building roomcast; the first time takes some minutes (ROOMCAST_BIN names a built one)");
  execFileSync("cargo", ["build", "--release", "--locked"], { cwd: root, stdio: "inherit" });
  const about = execFileSync("cargo", ["metadata", "--format-version=1", "--no-deps"], { cwd: root });
  return path.join(JSON.parse(about).target_directory, "release/roomcast");
}

/** Starts a part, whose lines are printed with its name in front. When one ends, all do. */
function run(name, command, args, env) {
  const part = spawn(command, args, { cwd: here, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
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

async function stop(code) {
  if (stopping) return;
  stopping = true;
  for (const part of parts) part.kill("SIGTERM");
  setTimeout(() => parts.forEach((part) => part.kill("SIGKILL")), STOP_WITHIN_MS).unref();
  await Promise.all(parts.map(({ ended }) => ended));
  process.exit(code);
}

async function answers(url) {
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
