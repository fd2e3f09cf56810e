// The packages that tests/e2e installs, for files beside it.
import { createRequire } from "node:module";

const require = createRequire(new URL("../../e2e/package.json", import.meta.url));

export const { io } = require("socket.io-client");
export const { createClient } = require("redis");
export const { Emitter } = require("@socket.io/redis-emitter");
export const { chromium } = require("playwright-core");
/** The bundle that a page loads by a script tag. */
export const CLIENT_BUNDLE = new URL("../../e2e/node_modules/socket.io-client/dist/socket.io.min.js", import.meta.url);
