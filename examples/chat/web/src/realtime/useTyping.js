import { useCallback, useEffect, useRef, useState } from "react";
import { useRealtime } from "./Realtime.jsx";

const REPEAT_MS = 2000;
const IDLE_MS = 3000;
/** Longer than REPEAT_MS: a volatile event may be lost, the last one too. */
const FORGET_MS = 4500;

/** The names of those who type here; a message of theirs ends it. */
export function useTypingNames(conversationId) {
  const { socket } = useRealtime();
  const [typing, setTyping] = useState({});

  useEffect(() => {
    if (!socket) return;
    const timers = {};
    const set = (userId, name) => setTyping(({ [userId]: _, ...others }) => (name ? { ...others, [userId]: name } : others));
    const heard = ({ conversationId: id, userId, name, isTyping }) => {
      if (id !== conversationId) return;
      clearTimeout(timers[userId]);
      set(userId, isTyping && name);
      if (isTyping) timers[userId] = setTimeout(set, FORGET_MS, userId);
    };
    const sent = ({ conversationId: id, senderId }) => heard({ conversationId: id, userId: senderId, isTyping: false });
    socket.on("typing", heard);
    socket.on("message:new", sent);
    return () => {
      socket.off("typing", heard);
      socket.off("message:new", sent);
      Object.values(timers).forEach(clearTimeout);
      setTyping({});
    };
  }, [socket, conversationId]);

  return Object.values(typing);
}

/** Tells the others: `typed()` at each key, `stopped()` when it is sent or given up. */
export function useTypingSignal(conversationId) {
  const { socket } = useRealtime();
  const last = useRef({ at: 0, idle: undefined });

  const tell = useCallback(
    // Volatile: dropped while there is no connection, rather than sent late.
    (isTyping) => socket?.volatile.emit("typing", { conversationId, isTyping }),
    [socket, conversationId],
  );
  const stopped = useCallback(() => {
    clearTimeout(last.current.idle);
    if (last.current.at) tell(false);
    last.current.at = 0;
  }, [tell]);
  const typed = useCallback(() => {
    clearTimeout(last.current.idle);
    last.current.idle = setTimeout(stopped, IDLE_MS);
    if (Date.now() - last.current.at < REPEAT_MS) return;
    last.current.at = Date.now();
    tell(true);
  }, [tell, stopped]);

  useEffect(() => stopped, [stopped]);
  return { typed, stopped };
}
