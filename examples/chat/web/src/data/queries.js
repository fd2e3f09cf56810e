// The page's reads and writes, as React Query hooks.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { useRealtime } from "../realtime/Realtime.jsx";
import { get, post } from "./api.js";
import { keys, latestFirst, markFailed, mergeConversation, putConversation, putMessage, withNewer } from "./cache.js";
import { setSession, useSession } from "./session.js";

/** How often the API is asked while the realtime connection is gone. */
const POLL_MS = 4000;

/** Kept true by events while live, by polling while offline. */
function useKeptQuery(queryKey, queryFn) {
  const { state } = useRealtime();
  return useQuery({ queryKey, queryFn, refetchInterval: state === "offline" && POLL_MS });
}

export function useConversations() {
  const queryClient = useQueryClient();
  return useKeptQuery(keys.conversations, async () => {
    const fetched = await get("/conversations");
    const known = queryClient.getQueryData(keys.conversations) ?? [];
    return latestFirst(fetched.map((one) => mergeConversation(known.find(({ id }) => id === one.id), one)));
  });
}

export function useMessages(conversationId) {
  const queryClient = useQueryClient();
  const queryKey = keys.messages(conversationId);
  return useKeptQuery(queryKey, async () => {
    const fetched = await get(`/conversations/${conversationId}/messages`);
    return withNewer(fetched, queryClient.getQueryData(queryKey));
  });
}

/** `{ [userId]: { online, lastSeen } }` */
export function usePresence() {
  const { data = {} } = useKeptQuery(keys.presence, async () => {
    const contacts = await get("/presence");
    return Object.fromEntries(contacts.map((contact) => [contact.userId, contact]));
  });
  return data;
}

export const useUsers = () => useQuery({ queryKey: keys.users, queryFn: () => get("/users") });

/** Shows the message at once; the answer replaces it, or it is marked as failed and can be sent again as it is. */
export function useSendMessage(conversationId) {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: ({ clientId, text }) => post(`/conversations/${conversationId}/messages`, { clientId, text }),
    onMutate: (draft) => putMessage(queryClient, { ...draft, conversationId, status: "sending" }),
    onSuccess: (message) => putMessage(queryClient, message),
    onError: (_, draft) => markFailed(queryClient, { conversationId, clientId: draft.clientId }),
  });
}

export function useMarkRead(conversationId) {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: (messageId) => post(`/conversations/${conversationId}/read`, { messageId }),
    onSuccess: (conversation) => putConversation(queryClient, conversation),
    retry: 5,
  });
}

export function useStartConversation() {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: (userIds) => post("/conversations", { userIds }),
    onSuccess: (conversation) => {
      putConversation(queryClient, conversation);
      queryClient.invalidateQueries({ queryKey: keys.presence });
    },
  });
}

export const useSignIn = () => useMutation({ mutationFn: (name) => post("/sign-in", { name }), onSuccess: setSession });

/** A fresh token at the start and at half-life; the socket takes it when it connects again. */
export function useRenewal() {
  const session = useSession();
  useQuery({
    queryKey: ["renewal"],
    queryFn: async () => {
      setSession(await post("/renew"));
      return null;
    },
    refetchInterval: session.expiresIn * 500,
    refetchIntervalInBackground: true,
    staleTime: Infinity,
  });
}
