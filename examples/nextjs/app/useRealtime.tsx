"use client";
import { useEffect } from "react";
import { io } from "socket.io-client";
import type { Message } from "../db";

export function useRealtime(url: string, chatId: string, show: (message: Message) => void) {
  useEffect(() => {
    const socket = io(url, {
      // Asked at each reconnect, so that the token is always fresh.
      auth: (done) => fetch("/realtime/token").then((answer) => answer.json()).then(done),
    });
    socket.on("connect", () => socket.emit("join_chat", { chatId }));
    socket.on("new_message", show);
    return () => { socket.disconnect(); };
  }, [url, chatId, show]);
}
