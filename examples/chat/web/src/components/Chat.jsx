import { useEffect, useState } from "react";
import { useConversations, usePresence, useRenewal } from "../data/queries.js";
import { setSession } from "../data/session.js";
import { Badge } from "./Badge.jsx";
import { Conversation } from "./Conversation.jsx";
import { ConversationList } from "./ConversationList.jsx";
import { NewConversation } from "./NewConversation.jsx";

export function Chat({ user }) {
  useRenewal();
  const { data: conversations = [] } = useConversations();
  const presence = usePresence();
  const [openId, setOpenId] = useState(null);
  const open = conversations.find(({ id }) => id === openId);

  const unread = conversations.reduce((sum, conversation) => sum + conversation.unread, 0);
  useEffect(() => {
    document.title = `${unread ? `(${unread}) ` : ""}${user.name} · Chat on roomcast`;
  }, [unread, user.name]);

  return (
    <div className="chat" data-open={open !== undefined}>
      <aside>
        <header>
          <strong>{user.name}</strong>
          <Badge />
          <button className="quiet" onClick={() => setSession(null)}>
            Sign out
          </button>
        </header>
        <NewConversation onStarted={setOpenId} />
        <ConversationList user={user} conversations={conversations} presence={presence} openId={openId} onOpen={setOpenId} />
      </aside>
      {open ? (
        <Conversation key={open.id} user={user} conversation={open} presence={presence} onBack={() => setOpenId(null)} />
      ) : (
        <main className="empty">Choose a conversation, or start one.</main>
      )}
    </div>
  );
}
