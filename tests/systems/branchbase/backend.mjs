// BranchBase's API: several replicas over one database. They publish with XADD on their own Redis.
import { sign } from "../../harness/token.mjs";
import { createClient } from "redis";
import { HttpError, Service } from "../service.mjs";

const STREAM = "roomcast:events";

/** The database that all replicas share. */
export const database = () => ({ messages: [], unread: new Map(), refreshes: 0 });

class Replica extends Service {
  constructor(secrets, db, redis, tokenSeconds) {
    super(secrets);
    Object.assign(this, { db, redis, tokenSeconds });
    this.route("POST", "/auth/sign-in", ({ body }) => this.tokens(body.user), { open: true });
    this.route("POST", "/auth/refresh", ({ body }) => this.refresh(body.refreshToken), { open: true });
    this.route("GET", "/conversations", ({ user }) => this.conversations(user));
    this.route("POST", "/users/:userId/messages", (request) => this.sendMessageToUser(request));
    this.route("POST", "/conversations/:id/read", (request) => this.markConversationRead(request));
  }

  tokens(user) {
    const exp = Math.floor(Date.now() / 1000) + this.tokenSeconds;
    return { token: sign({ sub: user, exp }, { key: this.secrets.jwt }), expiresAt: exp * 1000, refreshToken: `refresh-${user}` };
  }

  refresh(refreshToken) {
    const [, user] = /^refresh-(.+)$/.exec(refreshToken ?? "") ?? [];
    if (!user) throw new HttpError(401, "signed out");
    this.db.refreshes += 1;
    return this.tokens(user);
  }

  conversations(user) {
    const unread = [...this.db.unread].filter(([key]) => key.startsWith(`${user} `));
    return { conversations: unread.map(([key, count]) => ({ id: key.split(" ")[1], unread: count })) };
  }

  async sendMessageToUser({ user, params: { userId }, body }) {
    const conversationId = [user, userId].toSorted().join("-");
    const message = { id: this.db.messages.length + 1, conversationId, from: user, text: body.text };
    this.db.messages.push(message);
    const key = `${userId} ${conversationId}`;
    this.db.unread.set(key, (this.db.unread.get(key) ?? 0) + 1);
    await this.publish([`user:${user}`, `user:${userId}`], "message:new", message);
    await this.publish([`user:${userId}`], "conversation:update", { conversationId, unread: this.db.unread.get(key) });
    return message;
  }

  async markConversationRead({ user, params: { id } }) {
    this.db.unread.set(`${user} ${id}`, 0);
    await this.publish([`user:${user}`], "conversation:update", { conversationId: id, unread: 0 });
  }

  publish(rooms, event, data) {
    return this.redis.xAdd(STREAM, "*", { rooms: JSON.stringify(rooms), event, data: JSON.stringify(data) });
  }

  async close() {
    super.close();
    await this.redis.close();
  }
}

/** One replica; several share `db`. */
export async function startReplica({ redisUrl, secrets, db = database(), tokenSeconds = 3600 }) {
  const redis = await createClient({ url: redisUrl }).on("error", () => {}).connect();
  return new Replica(secrets, db, redis, tokenSeconds).listen();
}
