import { isOnline, titleOf } from "./people.js";

export function ConversationList({ user, conversations, presence, openId, onOpen }) {
  return (
    <ul className="conversations">
      {conversations.map((conversation) => (
        <li key={conversation.id}>
          <button data-conversation={conversation.id} aria-current={conversation.id === openId} onClick={() => onOpen(conversation.id)}>
            <span className="dot" data-online={isOnline(conversation, user, presence)} />
            <span className="title">{titleOf(conversation, user)}</span>
            {conversation.unread > 0 && <span className="unread">{conversation.unread}</span>}
            <span className="preview">{conversation.lastMessage?.text ?? "Nothing said yet"}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}
