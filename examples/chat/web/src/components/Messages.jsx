import { useLayoutEffect, useRef } from "react";
import { identityOf } from "../data/cache.js";
import { othersIn, timeOf } from "./people.js";

export function Messages({ user, conversation, messages, onRetry }) {
  const list = useRef(null);
  const last = messages.at(-1);
  useLayoutEffect(() => {
    list.current.scrollTop = list.current.scrollHeight;
  }, [last && identityOf(last)]);

  const names = Object.fromEntries(conversation.participants.map(({ id, name }) => [id, name]));
  const isGroup = conversation.participants.length > 2;
  return (
    <ol className="messages" ref={list}>
      {messages.map((message) => {
        const isMine = message.senderId === user.id;
        const status = isMine ? statusOf(message, othersIn(conversation, user)) : undefined;
        return (
          <li key={identityOf(message)} className={isMine ? "mine" : "theirs"} data-id={message.id} data-status={status}>
            {isGroup && !isMine && <span className="sender">{names[message.senderId]}</span>}
            <span className="text">{message.text}</span>
            <span className="meta">
              {timeOf(message)} {isMine && <Status status={status} onRetry={() => onRetry(message)} />}
            </span>
          </li>
        );
      })}
    </ol>
  );
}

/** "sending", "failed", "sent", or "read" when all the others have. */
function statusOf(message, others) {
  if (!message.id) return message.status;
  return others.every(({ lastReadId }) => lastReadId >= message.id) ? "read" : "sent";
}

const LABELS = { sending: "sending…", sent: "✓", read: "✓✓ read" };

function Status({ status, onRetry }) {
  if (status !== "failed") return <span className="status">{LABELS[status]}</span>;
  return (
    <span className="status">
      not sent{" "}
      <button className="retry" onClick={onRetry}>
        Retry
      </button>
    </span>
  );
}
