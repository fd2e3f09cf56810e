// The socket of StockENT's frontend, and its conversation page.
import { io } from "socket.io-client";

export const connect = (url, token, options) =>
  io(url, { forceNew: true, withCredentials: true, transports: ["websocket", "polling"], auth: { token }, ...options });

export class ConversationPage {
  messages = [];

  constructor(socket, conversationId) {
    Object.assign(this, { socket, conversationId });
    this.onMessage = (message) => message.conversationId === conversationId && this.messages.push(message);
    this.onDeleted = ({ messageId }) => (this.messages = this.messages.filter((message) => message.id !== messageId));
  }

  /** On view. */
  async mount() {
    this.socket.on("message_received", this.onMessage);
    this.socket.on("message_deleted", this.onDeleted);
    return this.socket.timeout(15_000).emitWithAck("join_conversation", { conversationId: this.conversationId });
  }

  /** On navigation. */
  async unmount() {
    this.socket.off("message_received", this.onMessage);
    this.socket.off("message_deleted", this.onDeleted);
    return this.socket.timeout(15_000).emitWithAck("leave_conversation", { conversationId: this.conversationId });
  }

  send = (text) => this.socket.timeout(15_000).emitWithAck("send_message", { conversationId: this.conversationId, text });
}
