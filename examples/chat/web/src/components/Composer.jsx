import { useState } from "react";
import { useTypingSignal } from "../realtime/useTyping.js";

export function Composer({ conversationId, user, onSend }) {
  const [text, setText] = useState("");
  const { typed, stopped } = useTypingSignal(conversationId);
  const submit = (event) => {
    event.preventDefault();
    if (text.trim() === "") return;
    onSend({ clientId: newId(), senderId: user.id, text: text.trim(), createdAt: new Date().toISOString() });
    setText("");
    stopped();
  };

  return (
    <form className="composer" onSubmit={submit}>
      <input
        name="text"
        value={text}
        placeholder="Write a message"
        maxLength={4000}
        autoComplete="off"
        autoFocus
        onChange={(event) => {
          setText(event.target.value);
          typed();
        }}
      />
      <button disabled={text.trim() === ""}>Send</button>
    </form>
  );
}

/** Random; unlike crypto.randomUUID it also works on a page without TLS. */
const newId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(36)).join("");
