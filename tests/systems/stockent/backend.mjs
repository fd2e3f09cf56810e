// StockENT's API: a message sent by HTTP or by a socket event is saved and published in the same way.
import { HttpError, httpPublisher, Service } from "../service.mjs";

class Backend extends Service {
  /** id → { id, members } */
  conversations = new Map();
  messages = [];

  constructor({ secrets, roomcastUrl, key }) {
    super(secrets, (claims) => claims.id);
    this.roomcast = httpPublisher(roomcastUrl, key);
    this.route("POST", "/conversations", ({ user, body }) => this.create(user, body.with));
    this.route("POST", "/conversations/:id/messages", ({ user, params, body }) => this.send(user, Number(params.id), body.text));
    this.route("DELETE", "/conversations/:id/messages/:message", ({ user, params }) => this.deleteMessage(user, Number(params.id), Number(params.message)));
    this.route("DELETE", "/conversations/:id", ({ user, params }) => this.deleteConversation(user, Number(params.id)));
    this.webhook({
      join: ({ user, room }) => {
        const allowed = this.conversations.get(Number(room.split(":")[1]))?.members.includes(user);
        return allowed ? { allow: true } : { allow: false, error: "You are not part of this conversation" };
      },
      event: async ({ user, args: [{ conversationId, text }] }) => {
        try {
          return { ack: [{ success: true, message: await this.send(user, conversationId, text) }] };
        } catch (error) {
          return { error: error.message };
        }
      },
    });
  }

  #conversation(user, id) {
    const conversation = this.conversations.get(id);
    if (!conversation?.members.includes(user)) throw new HttpError(403, "You are not part of this conversation");
    return conversation;
  }

  async create(user, other) {
    const conversation = { id: this.conversations.size + 1, members: [user, other] };
    this.conversations.set(conversation.id, conversation);
    await this.roomcast.publish({ rooms: conversation.members.map((member) => `user:${member}`), event: "conversation_created", data: conversation });
    return conversation;
  }

  async send(user, id, text) {
    const { members } = this.#conversation(user, id);
    if (!text) throw new HttpError(422, "A message needs text");
    const message = { id: this.messages.length + 1, conversationId: id, senderId: user, text };
    this.messages.push(message);
    const room = `conversation:${id}`;
    await this.roomcast.publish(
      { room, event: "message_received", data: message },
      // No notification where the other user is viewing the conversation.
      { rooms: members.filter((member) => member !== user).map((member) => `user:${member}`), except: [room], event: "new_message_notification", data: { conversationId: id, preview: text } },
    );
    return message;
  }

  async deleteMessage(user, id, messageId) {
    this.#conversation(user, id);
    this.messages = this.messages.filter((message) => message.id !== messageId);
    await this.roomcast.publish({ room: `conversation:${id}`, event: "message_deleted", data: { conversationId: id, messageId } });
  }

  async deleteConversation(user, id) {
    const { members } = this.#conversation(user, id);
    this.conversations.delete(id);
    const room = `conversation:${id}`;
    await this.roomcast.publish({ rooms: [room, ...members.map((member) => `user:${member}`)], event: "conversation_deleted", data: { conversationId: id } });
    await this.roomcast.post("/leave", { in: room, rooms: [room] });
  }
}

export const startBackend = (options) => new Backend(options).listen();
