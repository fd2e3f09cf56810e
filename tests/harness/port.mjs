// A free port of 127.0.0.1.
import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";

// Below the kernel's ephemeral range (32768 and up), because tests stop a server and start it again on its port: an
// outgoing connection of another test must not have taken it meanwhile, nor a client connect to itself.
const LOWEST = 12_000;
const HIGHEST = 32_000;

// Between this look and the server's own bind another test's process might take the port: each names those it has got.
const TAKEN = path.join(os.tmpdir(), "roomcast-test-ports");
fs.mkdirSync(TAKEN, { recursive: true });

function bindable(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

function lives(pid) {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return error.code === "EPERM";
  }
}

/** Whether the port is this process' own for as long as it runs. */
function take(port) {
  const file = path.join(TAKEN, String(port));
  try {
    fs.writeFileSync(file, String(process.pid), { flag: "wx" });
    return true;
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  // What a process that has ended left there is nobody's; the port goes to whoever asks next.
  try {
    const owner = Number(fs.readFileSync(file, "utf8"));
    if (owner > 0 && !lives(owner)) fs.rmSync(file, { force: true });
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  return false;
}

/** A port that is nobody else's. */
export async function freePort() {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (take(port) && (await bindable(port))) return port;
  }
}
