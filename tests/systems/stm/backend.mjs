// The chat part of STM's API: it decides on joins, saves messages, and emits with its answers.
import { httpPublisher, Service } from "../service.mjs";

const TYPES = ["text", "image", "document"];
const ROLES = ["customer", "provider", "mediator"];

class Backend extends Service {
  /** chat id → { customer, provider, mediator } */
  chats = new Map();
  messages = [];
  reads = [];
  /** The notifications of offline users. */
  notifications = [];
  failures = [];

  constructor({ secrets, roomcastUrl, key }) {
    super(secrets);
    this.roomcast = httpPublisher(roomcastUrl, key);
    this.webhook({
      join: ({ user, room }) => (this.roleIn(user, room.split(":")[1]) ? { allow: true } : { allow: false, error: "Access denied to this chat" }),
      event: ({ event, user, args: [data] }) => (event === "send_message" ? this.send(user, data ?? {}) : this.markRead(user, data ?? {})),
    });
  }

  roleIn = (user, chatId) => ROLES.find((role) => this.chats.get(chatId)?.[role] === user);

  async send(user, { chatId, message, message_type: type = "text" }) {
    const role = this.roleIn(user, chatId);
    if (!role) return { error: "Access denied to this chat" };
    if (!message || !TYPES.includes(type)) return { error: `message_type must be one of ${TYPES.join(", ")}, and message not empty` };
    const saved = { id: `m${this.messages.length + 1}`, chatId, sender_type: role, sender_id: user, message, message_type: type, created_at: new Date().toISOString() };
    this.messages.push(saved);
    // The message is published whether or not this succeeds.
    this.notifyOffline(user, saved).catch((error) => this.failures.push(error.message));
    return { emit: [{ room: `chat:${chatId}`, event: "new_message", args: [saved] }] };
  }

  /** Notifies the users of the chat that are offline. */
  async notifyOffline(sender, { chatId, id }) {
    const others = ROLES.map((role) => this.chats.get(chatId)[role]).filter((user) => user && user !== sender);
    const { users } = await this.roomcast.post("/users", { users: others });
    for (const { user, online } of users) if (!online) this.notifications.push({ user, message: id });
  }

  markRead(user, { chatId }) {
    if (!this.roleIn(user, chatId)) return { error: "Access denied to this chat" };
    this.reads.push({ user, chatId });
    return {};
  }
}

export const startBackend = (options) => new Backend(options).listen();
