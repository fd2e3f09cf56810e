// `npm start`: builds the page, then runs the backend and roomcast beside each other until Ctrl-C.
import { execFileSync } from "node:child_process";
import path from "node:path";
import { announce, answers, run, runRoomcast, secrets } from "../beside.mjs";

const here = import.meta.dirname;
const { PORT = "3000", ROOMCAST_PORT = "8080" } = process.env;
const page = `http://localhost:${PORT}`;

execFileSync("npm", ["run", "build", "--silent"], { cwd: here, stdio: "inherit" });
runRoomcast(here, {
  port: ROOMCAST_PORT,
  origins: [page, `http://127.0.0.1:${PORT}`, "http://localhost:5173"],
  backend: `http://127.0.0.1:${PORT}`,
});
run("backend", process.execPath, [path.join(here, "backend/server.js")], {
  cwd: here,
  env: {
    ...secrets,
    ROOMCAST_URL: `http://127.0.0.1:${ROOMCAST_PORT}`,
    ROOMCAST_PUBLIC_URL: `http://localhost:${ROOMCAST_PORT}`,
    PORT,
  },
});

await answers(`http://127.0.0.1:${ROOMCAST_PORT}/health`);
await answers(`http://127.0.0.1:${PORT}/health`);
announce(page);
