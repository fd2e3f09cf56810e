// The backend's process: settings from the environment, the routes, and the built page.
import { createServer } from "node:http";
import path from "node:path";
import express from "express";
import { api } from "./api.js";
import { openDatabase } from "./database.js";
import { realtime } from "./realtime.js";
import { Sessions } from "./sessions.js";
import { Store } from "./store.js";

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
const publishKey = secret("ROOMCAST_PUBLISH__KEYS");
const webhookSecret = secret("ROOMCAST_BACKEND__SECRET");

const app = express().disable("x-powered-by");
const server = createServer(app);
// The port first: who has it is the only one to open the database.
await new Promise((resolve, reject) => server.once("error", reject).listen(Number(PORT), HOST, resolve));

const database = openDatabase(DATABASE);
const store = new Store(database);
const sessions = new Sessions(jwtSecret, Number(TOKEN_SECONDS));
const live = realtime({ database, store, url: ROOMCAST_URL, key: publishKey, secret: webhookSecret });

app.get("/health", (_, response) => response.json({ status: "ok" }));
app.use("/roomcast", live.webhook);
app.use("/api", api({ database, store, sessions, realtime: live, realtimeUrl: ROOMCAST_PUBLIC_URL }));
app.use(express.static(path.join(here, "../web/dist")));
app.use((error, request, response, _next) => {
  const status = error.status ?? 500;
  if (status >= 500) console.error(`${request.method} ${request.path}:`, error);
  response.status(status).json({ error: error.expose ? error.message : "something went wrong here" });
});

live.start(); // also what the last run left
console.log(`listening on http://${HOST}:${PORT}`);

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    server.close(async () => {
      await live.close();
      database.close();
      process.exit(0);
    });
    setTimeout(() => server.closeAllConnections(), LAST_ANSWERS_MS).unref();
  });
}
