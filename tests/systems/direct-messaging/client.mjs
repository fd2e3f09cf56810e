// An open conversation of the messenger: what it shows, and how it sends.
import { io } from "socket.io-client";

export const connect = (url, token, options) => io(url, { forceNew: true, auth: { token }, ...options });

/** The messages of one open conversation: `{ clientId, text, pending?, failed?, id? }`. */
export class Thread {
  messages = [];
  typing = new Set();
  readBy = new Set();

  constructor(socket, api, id) {
    Object.assign(this, { socket, api, id });
    this.listeners = {
      new_message: (message) => message.conversationId === id && this.#put(message),
      typing_start: ({ conversationId, userId }) => conversationId === id && this.typing.add(userId),
      typing_stop: ({ conversationId, userId }) => conversationId === id && this.typing.delete(userId),
      conversation_read: ({ conversationId, userId }) => conversationId === id && this.readBy.add(userId),
    };
  }

  async open() {
    for (const [event, listener] of Object.entries(this.listeners)) this.socket.on(event, listener);
    const joined = await this.socket.timeout(15_000).emitWithAck("join_conversation", this.id);
    if (joined.ok) await this.socket.timeout(15_000).emitWithAck("mark_read", this.id);
    return joined;
  }

  async close() {
    for (const [event, listener] of Object.entries(this.listeners)) this.socket.off(event, listener);
    return this.socket.timeout(15_000).emitWithAck("leave_conversation", this.id);
  }

  /** Shows the message at once; the answer or the event, whichever comes first, replaces it. */
  async send(text) {
    const clientId = crypto.randomUUID();
    this.messages.push({ clientId, text, pending: true });
    try {
      this.#put(await this.api.post(`/api/v1/conversations/${this.id}/messages`, { clientId, text }));
    } catch (error) {
      Object.assign(this.messages.find((message) => message.clientId === clientId), { pending: false, failed: error.message });
    }
  }

  #put(message) {
    const at = this.messages.findIndex((known) => known.clientId === message.clientId);
    if (at < 0) this.messages.push(message);
    else this.messages[at] = message;
  }
}
