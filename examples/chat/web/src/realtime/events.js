// What comes by the socket, into the cache.
import { putConversation, putMessage, putPresence, putReceipt, keys } from "../data/cache.js";

export function listen(socket, queryClient) {
  socket.on("message:new", (message) => putMessage(queryClient, message));
  socket.on("conversation:read", (receipt) => putReceipt(queryClient, receipt));
  socket.on("presence", (presence) => putPresence(queryClient, presence));
  socket.on("conversation:update", (conversation) => {
    const known = queryClient.getQueryData(keys.conversations);
    putConversation(queryClient, conversation);
    // Somebody new to talk to: are they online?
    if (!known?.some(({ id }) => id === conversation.id)) queryClient.invalidateQueries({ queryKey: keys.presence });
  });

  // `recovered`: roomcast has sent everything that was missed meanwhile. If it has not, the API knows.
  socket.on("connect", () => {
    if (!socket.recovered) queryClient.invalidateQueries();
  });
}
