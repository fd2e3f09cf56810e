// The backend's process: settings from the environment, the routes, and the built page.
import { createServer } from "node:http";
import path from "node:path";
import express from "express";
import { api } from "./api.js";
import { openDatabase } from "./database.js";
import { Roomcast } from "./roomcast.js";
import { Sessions } from "./sessions.js";
import { Store } from "./store.js";
import { webhook } from "./webhook.js";

const LAST_ANSWERS_MS = 1000;
const here = import.meta.dirname;
const {
  PORT = "3000",
  HOST = "127.0.0.1",
  DATABASE = path.join(here, "../chat.sqlite"),
  TOKEN_SECONDS = "3600",
  ROOMCAST_URL = "http://127.0.0.1:8080", // from here
  ROOMCAST_PUBLIC_URL = "http://localhost:8080", // from the browser
} = process.env;

function secret(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set; \`npm start\` makes one up`);
  return value;
}
const jwtSecret = secret("JWT_SECRET");
const roomcastKey = secret("ROOMCAST_KEY");
const webhookSecret = secret("ROOMCAST_WEBHOOK_SECRET");

const app = express().disable("x-powered-by");
const server = createServer(app);
// The port first: who has it is the only one to open the database.
await new Promise((resolve, reject) => server.once("error", reject).listen(Number(PORT), HOST, resolve));

const database = openDatabase(DATABASE);
const store = new Store(database);
const sessions = new Sessions(jwtSecret, Number(TOKEN_SECONDS));
const roomcast = new Roomcast(database, { url: ROOMCAST_URL, key: roomcastKey });

app.get("/health", (_, response) => response.json({ status: "ok" }));
app.use("/roomcast", webhook({ secret: webhookSecret, database, store, roomcast }));
app.use("/api", api({ database, store, sessions, roomcast, realtimeUrl: ROOMCAST_PUBLIC_URL }));
app.use(express.static(path.join(here, "../web/dist")));
app.use((error, request, response, _next) => {
  const status = error.status ?? 500;
  if (status >= 500) console.error(`${request.method} ${request.path}:`, error);
  response.status(status).json({ error: error.expose ? error.message : "something went wrong here" });
});

roomcast.publish(); // what the last run left
console.log(`listening on http://${HOST}:${PORT}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    roomcast.close();
    server.close(() => {
      database.close();
      process.exit(0);
    });
    setTimeout(() => server.closeAllConnections(), LAST_ANSWERS_MS).unref();
  });
}
