// The one socket of the page: stock socket.io-client, connected while somebody is signed in.
import { useQueryClient } from "@tanstack/react-query";
import { createContext, useContext, useEffect, useState } from "react";
import { io } from "socket.io-client";
import { getSession } from "../data/session.js";
import { listen } from "./events.js";
import { useConnectionState } from "./useConnectionState.js";

const RealtimeContext = createContext({ socket: null, state: "reconnecting" });

/** `{ socket, state }`; `state` is "live", "reconnecting" or "offline". */
export const useRealtime = () => useContext(RealtimeContext);

export function Realtime({ url, children }) {
  const queryClient = useQueryClient();
  const [socket, setSocket] = useState(null);

  useEffect(() => {
    const opened = io(url, {
      // A function, so that each reconnection has the token of that moment.
      auth: (done) => done({ token: getSession()?.token }),
      reconnectionDelay: 500,
      reconnectionDelayMax: 5000,
    });
    listen(opened, queryClient);
    setSocket(opened);
    return () => opened.disconnect();
  }, [url, queryClient]);

  const state = useConnectionState(socket);
  return <RealtimeContext.Provider value={{ socket, state }}>{children}</RealtimeContext.Provider>;
}
