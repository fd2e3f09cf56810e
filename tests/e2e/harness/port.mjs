// A free port of 127.0.0.1.
import net from "node:net";

// Below the kernel's ephemeral range (32768 and up), because tests stop a server and start it again on its port: an
// outgoing connection of another test must not have taken it meanwhile, nor a client connect to itself.
const LOWEST = 12_000;
const HIGHEST = 32_000;

function bindable(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** A port that could be bound a moment ago. */
export async function freePort() {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    if (await bindable(port)) return port;
  }
}
