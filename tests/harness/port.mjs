// A free port of 127.0.0.1.
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

// Below the kernel's ephemeral range (32768 and up), because tests stop a server and start it again on its port: no
// outgoing connection of another test may take the port meanwhile, and no client may connect to itself.
const LOWEST = 12_000;
const HIGHEST = 32_000;

// Another test process could take a port between the check and the server's bind, so each process records its ports.
const TAKEN = path.join(os.tmpdir(), "roomcast-test-ports");
fs.mkdirSync(TAKEN, { recursive: true });

function bindable(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

function isRunning(pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Reserves the port for as long as this process runs; `false` if another process has it. */
function reserve(port) {
  const file = path.join(TAKEN, String(port));
  try {
    fs.writeFileSync(file, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  // A file of a process that has ended is removed, so that the next caller gets the port.
  try {
    const owner = Number(fs.readFileSync(file, "utf8"));
    if (owner > 0 && !isRunning(owner)) fs.rmSync(file, { force: true });
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  return false;
}

/** A port that no other test uses. */
export async function freePort() {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (reserve(port) && (await bindable(port))) return port;
  }
}
