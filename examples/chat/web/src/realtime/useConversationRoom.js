import { useQueryClient } from "@tanstack/react-query";
import { useEffect } from "react";
import { keys } from "../data/cache.js";
import { useRealtime } from "./Realtime.jsx";

const RETRY_MS = 3000;

/** In the room `conversation:<id>` while the conversation is on screen. */
export function useConversationRoom(conversationId) {
  const { socket } = useRealtime();
  const queryClient = useQueryClient();

  useEffect(() => {
    if (!socket) return;
    let isIn = false;
    let retrying;
    const join = () => {
      clearTimeout(retrying);
      socket.emit("conversation:join", conversationId, ({ error }) => {
        // The backend, which is asked, may be away for a moment.
        if (error && error.code !== "refused") retrying = setTimeout(() => socket.connected && join(), RETRY_MS);
        if (error) return;
        // Messages may have come between loading and joining, but not while in the room.
        if (!isIn || !socket.recovered) queryClient.invalidateQueries({ queryKey: keys.messages(conversationId) });
        isIn = true;
      });
    };
    if (socket.connected) join();
    socket.on("connect", join);
    return () => {
      clearTimeout(retrying);
      socket.off("connect", join);
      socket.emit("conversation:leave", conversationId);
    };
  }, [socket, conversationId, queryClient]);
}
