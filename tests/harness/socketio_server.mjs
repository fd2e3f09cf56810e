// A Socket.IO server in Node with a Redis adapter, as teams have it before they migrate.
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import { Server } from "socket.io";

/** Connected node-redis clients. */
export async function redisClients(url, count) {
  const clients = Array.from({ length: count }, () => createClient({ url }).on("error", () => {}));
  await Promise.all(clients.map((client) => client.connect()));
  return clients;
}

/** `{ io, url, close }`: a server on a free port; `adapter` is `classic` or `streams`. */
export async function startSocketIo(redisUrl, adapter = "classic") {
  const clients = await redisClients(redisUrl, adapter === "classic" ? 2 : 1);
  const http = createServer();
  const make = adapter === "classic" ? createAdapter(clients[0], clients[1], { requestsTimeout: 20_000 }) : createStreamsAdapter(clients[0]);
  const io = new Server(http, { adapter: make });
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const close = async () => {
    await new Promise((resolve) => io.close(resolve));
    // The connection of the streams adapter is in a blocking read.
    for (const client of clients) await (adapter === "classic" ? client.close() : client.destroy());
  };
  return { io, url: `http://127.0.0.1:${http.address().port}`, close };
}
