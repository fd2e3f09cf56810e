import { useEffect, useState } from "react";

/** Away for longer than this is offline: the page polls, while the socket goes on trying. */
const OFFLINE_AFTER_MS = 4000;
const REFUSED_RETRY_MS = 5000;

/** "live", "reconnecting" or "offline". */
export function useConnectionState(socket) {
  const [state, setState] = useState("reconnecting");

  useEffect(() => {
    if (!socket) return;
    let givingUp, retrying;
    const live = () => {
      clearTimeout(givingUp);
      givingUp = undefined;
      setState("live");
    };
    const away = () => {
      if (givingUp) return;
      setState("reconnecting");
      givingUp = setTimeout(() => setState("offline"), OFFLINE_AFTER_MS);
    };
    // The client comes back by itself, except from a refusal and where the server ended it.
    const ended = () => {
      away();
      clearTimeout(retrying);
      if (!socket.active) retrying = setTimeout(() => socket.connect(), REFUSED_RETRY_MS);
    };

    socket.on("connect", live);
    socket.on("disconnect", ended);
    socket.on("connect_error", ended);
    if (socket.connected) live();
    else away();
    return () => {
      socket.off("connect", live);
      socket.off("disconnect", ended);
      socket.off("connect_error", ended);
      clearTimeout(givingUp);
      clearTimeout(retrying);
    };
  }, [socket]);

  return state;
}
