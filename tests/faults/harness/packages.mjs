// The packages that tests/e2e installs, for files beside it.
import { createRequire } from "node:module";

const require = createRequire(new URL("../../e2e/package.json", import.meta.url));

export const { io } = require("socket.io-client");
export const WebSocket = require("ws");
export const { Redis, Cluster } = require("ioredis");
