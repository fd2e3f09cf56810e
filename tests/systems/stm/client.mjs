// The chat socket of STM's frontend.
import { io } from "socket.io-client";

export const connect = (url, token, options) =>
  io(`${url}/chat`, { forceNew: true, auth: { token }, transports: ["websocket", "polling"], timeout: 10_000, reconnectionAttempts: 5, ...options });
