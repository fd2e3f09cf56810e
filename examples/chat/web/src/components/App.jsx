import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { useState } from "react";
import { useSession } from "../data/session.js";
import { Realtime } from "../realtime/Realtime.jsx";
import { Chat } from "./Chat.jsx";
import { SignIn } from "./SignIn.jsx";

export function App() {
  const session = useSession();
  return (
    <Cache key={session?.user.id}>
      {session ? (
        <Realtime url={session.realtimeUrl}>
          <Chat user={session.user} />
        </Realtime>
      ) : (
        <SignIn />
      )}
    </Cache>
  );
}

/** One for each user: what somebody saw is nothing for the next one. */
function Cache({ children }) {
  const [queryClient] = useState(() => new QueryClient());
  return <QueryClientProvider client={queryClient}>{children}</QueryClientProvider>;
}
