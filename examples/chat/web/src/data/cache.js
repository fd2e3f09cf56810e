// What the page knows, in React Query's cache. REST answers and realtime events both end here, in any order and more
// than once, so every change is written such that a repeat or an older state does no harm.

export const keys = {
  users: ["users"],
  presence: ["presence"],
  conversations: ["conversations"],
  messages: (conversationId) => ["messages", conversationId],
};

/** A message is known by its sender and the id that the sender's page made up, before and after the server has it. */
export const identityOf = ({ senderId, clientId }) => `${senderId} ${clientId}`;

/** The optimistic message, the answer to its POST and its event are one message. Only the server's has an `id`; it wins. */
export function mergeMessages(...lists) {
  const merged = new Map();
  for (const message of lists.flat()) {
    const known = merged.get(identityOf(message));
    if (!known?.id || message.id) merged.set(identityOf(message), message);
  }
  return [...merged.values()].sort((a, b) => (a.id ?? Infinity) - (b.id ?? Infinity) || 0);
}

/** A fresh answer of the API, with what is not in it yet: newer events, and messages on their way. */
export function withNewer(fetched, cached = []) {
  const latest = fetched.at(-1)?.id ?? 0;
  return mergeMessages(cached.filter(({ id }) => !id || id > latest), fetched);
}

export function putMessage(queryClient, message) {
  const key = keys.messages(message.conversationId);
  // A conversation that was not opened yet is loaded whole when it is.
  if (!queryClient.getQueryState(key)) return;
  queryClient.setQueryData(key, (messages = []) => mergeMessages(messages, [message]));
}

export function markFailed(queryClient, { conversationId, clientId }) {
  const fail = (message) => (message.clientId === clientId && !message.id ? { ...message, status: "failed" } : message);
  queryClient.setQueryData(keys.messages(conversationId), (messages) => messages?.map(fail));
}

/** Of two states of a conversation the one that knows more: these numbers only ever grow. */
export function mergeConversation(known, update) {
  if (!known) return update;
  const isOlder = (update.lastMessage?.id ?? 0) < (known.lastMessage?.id ?? 0) || update.lastReadId < known.lastReadId;
  const [newer, older] = isOlder ? [known, update] : [update, known];
  return older.participants.reduce((merged, { id, lastReadId }) => withReceipt(merged, id, lastReadId), newer);
}

function withReceipt(conversation, userId, lastReadId) {
  const participants = conversation.participants.map((participant) =>
    participant.id === userId ? { ...participant, lastReadId: Math.max(participant.lastReadId, lastReadId) } : participant,
  );
  return { ...conversation, participants };
}

export function putConversation(queryClient, update) {
  queryClient.setQueryData(keys.conversations, (conversations) => {
    if (!conversations) return conversations;
    const known = conversations.find(({ id }) => id === update.id);
    return latestFirst([...conversations.filter(({ id }) => id !== update.id), mergeConversation(known, update)]);
  });
}

export const latestFirst = (conversations) =>
  conversations.toSorted((a, b) => (b.lastMessage?.id ?? 0) - (a.lastMessage?.id ?? 0) || b.id - a.id);

export function putReceipt(queryClient, { conversationId, userId, lastReadId }) {
  queryClient.setQueryData(keys.conversations, (conversations) =>
    conversations?.map((one) => (one.id === conversationId ? withReceipt(one, userId, lastReadId) : one)),
  );
}

export function putPresence(queryClient, presence) {
  queryClient.setQueryData(keys.presence, (known) => known && { ...known, [presence.userId]: presence });
}
