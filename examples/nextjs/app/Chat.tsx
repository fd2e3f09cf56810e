"use client";
import { useCallback, useState } from "react";
import type { Message } from "../db";
import { useRealtime } from "./useRealtime";

interface Props {
  id: string;
  user: string;
  url: string;
  messages: Message[];
}

export function Chat({ id, user, url, messages: loaded }: Props) {
  const [messages, setMessages] = useState(loaded);
  // The sender sees its message by the answer and by the event, whichever comes first.
  const show = useCallback((message: Message) => {
    setMessages((all) => (all.some((one) => one.id === message.id) ? all : [...all, message].sort((a, b) => a.id - b.id)));
  }, []);
  useRealtime(url, id, show);

  async function send(form: FormData) {
    const answer = await fetch(`/chats/${id}/messages`, { method: "POST", body: JSON.stringify({ text: form.get("text") }) });
    if (answer.ok) show(await answer.json());
  }
  return (
    <main>
      <h1>Chat {id}</h1>
      <ul aria-label="Messages">
        {messages.map(({ id, author, text }) => (
          <li key={id}>
            <b>{author}</b> {text}
          </li>
        ))}
      </ul>
      <form action={send}>
        <input name="text" placeholder={`Write as ${user}`} aria-label="Message" required maxLength={2000} autoComplete="off" />
        <button>Send</button>
      </form>
    </main>
  );
}
