// `npm start`: builds the application, then runs Next.js and roomcast beside each other until Ctrl-C.
import { execFileSync } from "node:child_process";
import path from "node:path";
import { announce, answers, run, runRoomcast, secrets } from "../beside.mjs";

const here = import.meta.dirname;
const next = path.join(here, "node_modules/next/dist/bin/next");
const { PORT = "3000", ROOMCAST_PORT = "8080" } = process.env;
const page = `http://localhost:${PORT}`;

execFileSync("npm", ["run", "build", "--silent"], { cwd: here, stdio: "inherit" });
runRoomcast(here, { port: ROOMCAST_PORT, origins: [page, `http://127.0.0.1:${PORT}`], backend: `http://127.0.0.1:${PORT}` });
run("next", process.execPath, [next, "start", "--port", PORT], {
  cwd: here,
  env: {
    ...secrets,
    ROOMCAST_URL: `http://127.0.0.1:${ROOMCAST_PORT}`,
    ROOMCAST_PUBLIC_URL: `http://localhost:${ROOMCAST_PORT}`,
    NEXT_TELEMETRY_DISABLED: "1",
  },
});

await answers(`http://127.0.0.1:${ROOMCAST_PORT}/health`);
await answers(page);
announce(page);
