// The REST API of the messenger: it saves, then publishes by POST /publish.
import { HttpError, httpPublisher, Service } from "../service.mjs";

class Backend extends Service {
  /** conversation id → participants */
  conversations = new Map();
  messages = [];
  /** `${conversation} ${user}` → time */
  read = new Map();
  /** user → { online, lastSeen } */
  presence = new Map();

  constructor({ secrets, roomcastUrl, key }) {
    super(secrets);
    this.roomcast = httpPublisher(roomcastUrl, key);
    this.route("POST", "/api/v1/conversations/:id/messages", (request) => this.send(request));
    this.route("GET", "/api/v1/users/:id/presence", ({ params }) => this.presence.get(params.id) ?? { online: false, lastSeen: null });
    this.webhook({
      join: ({ user, room }) => (this.isParticipant(user, room.split(":")[1]) ? { allow: true } : { allow: false, error: "not your conversation" }),
      event: ({ event, user, args: [id] }) => (event === "mark_read" ? this.markRead(user, id) : { error: `unknown event ${event}` }),
      online: ({ user }) => void this.presence.set(`${user}`, { online: true, lastSeen: null }),
      offline: ({ user, last_seen: lastSeen }) => void this.presence.set(`${user}`, { online: false, lastSeen }),
    });
  }

  isParticipant = (user, id) => this.conversations.get(`${id}`)?.includes(`${user}`) ?? false;

  async send({ user, params: { id }, body }) {
    if (!this.isParticipant(user, id)) throw new HttpError(403, "not your conversation");
    if (!body.text) throw new HttpError(422, "text is missing");
    const message = { id: this.messages.length + 1, conversationId: id, senderId: user, clientId: body.clientId, text: body.text };
    this.messages.push(message);
    await this.roomcast.publish(
      { room: `conversation:${id}`, event: "new_message", data: message },
      ...this.conversations.get(id).map((participant) => ({
        room: `user:${participant}`,
        event: "conversation_updated",
        data: { conversationId: id, lastMessage: message.text, mine: participant === user },
      })),
    );
    return message;
  }

  markRead(user, id) {
    if (!this.isParticipant(user, id)) return { error: "not your conversation" };
    const readAt = new Date().toISOString();
    this.read.set(`${id} ${user}`, readAt);
    const receipt = { conversationId: id, userId: user, readAt };
    return { ack: [{ ok: true }], emit: [{ room: `conversation:${id}`, event: "conversation_read", args: [receipt] }] };
  }
}

export const startBackend = (options) => new Backend(options).listen();
