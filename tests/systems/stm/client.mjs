// STM's chat socket as its frontend makes it.
import { io } from "socket.io-client";

export const connect = (url, token, options) =>
  io(`${url}/chat`, { forceNew: true, auth: { token }, transports: ["websocket", "polling"], timeout: 10_000, reconnectionAttempts: 5, ...options });
