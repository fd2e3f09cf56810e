import { useEffect } from "react";
import { useMarkRead, useMessages, useSendMessage } from "../data/queries.js";
import { useConversationRoom } from "../realtime/useConversationRoom.js";
import { useTypingNames } from "../realtime/useTyping.js";
import { Composer } from "./Composer.jsx";
import { Messages } from "./Messages.jsx";
import { presenceOf, titleOf, typingText } from "./people.js";
import { usePageVisible } from "./usePageVisible.js";

export function Conversation({ user, conversation, presence, onBack }) {
  useConversationRoom(conversation.id);
  const { data: messages = [], error } = useMessages(conversation.id);
  const typing = useTypingNames(conversation.id);
  const send = useSendMessage(conversation.id);
  useReading(user, conversation, messages);

  return (
    <main className="conversation">
      <header>
        <button className="back quiet" onClick={onBack} aria-label="All conversations">
          ‹
        </button>
        <h2>{titleOf(conversation, user)}</h2>
        <span className="presence">{presenceOf(conversation, user, presence)}</span>
      </header>
      {error && messages.length === 0 && <p className="error">{error.message}</p>}
      <Messages user={user} conversation={conversation} messages={messages} onRetry={send.mutate} />
      <p className="typing" aria-live="polite">
        {typingText(typing)}
      </p>
      <Composer conversationId={conversation.id} user={user} onSend={send.mutate} />
    </main>
  );
}

/** What is on screen is read. */
function useReading(user, conversation, messages) {
  const { mutate: markRead } = useMarkRead(conversation.id);
  const isVisible = usePageVisible();
  const latest = messages.findLast(({ id, senderId }) => id && senderId !== user.id)?.id ?? 0;
  const isUnread = latest > conversation.lastReadId;
  useEffect(() => {
    if (isVisible && isUnread) markRead(latest);
  }, [isVisible, isUnread, latest, markRead]);
}
