// What the chat remembers. Nothing here knows of HTTP or of roomcast.
import { randomUUID } from "node:crypto";

const LATEST_MESSAGES = 200;

const MESSAGE = `
  id, conversation_id AS conversationId, sender_id AS senderId, client_id AS clientId, text, created_at AS createdAt`;

// A conversation as one of its participants sees it.
const CONVERSATION = `
  SELECT mine.conversation_id AS id, mine.last_read_id AS lastReadId,
    (SELECT count(*) FROM messages
      WHERE conversation_id = mine.conversation_id AND id > mine.last_read_id AND sender_id <> mine.user_id) AS unread,
    (SELECT max(id) FROM messages WHERE conversation_id = mine.conversation_id) AS lastMessageId
  FROM participants AS mine WHERE mine.user_id = :user`;

export class Store {
  #database;

  constructor(database) {
    this.#database = database;
  }

  /** The user of this name, who is new if need be. */
  userNamed(name) {
    this.#database.run("INSERT INTO users (id, name) VALUES (?, ?) ON CONFLICT (name) DO NOTHING", [randomUUID(), name]);
    return this.#database.get("SELECT id, name FROM users WHERE name = ?", [name]);
  }

  user = (id) => this.#database.get("SELECT id, name FROM users WHERE id = ?", [id]);
  users = () => this.#database.all("SELECT id, name FROM users ORDER BY name");
  sawUser = (id, time) => this.#database.run("UPDATE users SET last_seen = ? WHERE id = ?", [time, id]);

  /** Everybody who shares a conversation with this user: `{ id, lastSeen }`. */
  contacts(userId) {
    return this.#database.all(
      `SELECT DISTINCT users.id, users.last_seen AS lastSeen FROM participants AS mine
        JOIN participants AS theirs ON theirs.conversation_id = mine.conversation_id AND theirs.user_id <> mine.user_id
        JOIN users ON users.id = theirs.user_id
        WHERE mine.user_id = ?`,
      [userId],
    );
  }

  isParticipant(conversationId, userId) {
    const found = "SELECT 1 AS found FROM participants WHERE conversation_id = ? AND user_id = ?";
    return this.#database.get(found, [conversationId, userId]) !== null;
  }

  participants(conversationId) {
    return this.#database.all(
      `SELECT users.id, users.name, last_read_id AS lastReadId FROM participants
        JOIN users ON users.id = user_id WHERE conversation_id = ? ORDER BY users.name`,
      [conversationId],
    );
  }

  /** The conversation of exactly these users, which is new if need be: its id. */
  conversationOf(userIds) {
    const marks = userIds.map(() => "?").join(", ");
    const found = this.#database.get(
      `SELECT conversation_id AS id FROM participants GROUP BY conversation_id
        HAVING count(*) = ? AND sum(user_id IN (${marks})) = ?`,
      [userIds.length, ...userIds, userIds.length],
    );
    if (found) return found.id;
    const { lastInsertRowid: id } = this.#database.run("INSERT INTO conversations DEFAULT VALUES");
    for (const userId of userIds) {
      this.#database.run("INSERT INTO participants (conversation_id, user_id) VALUES (?, ?)", [id, userId]);
    }
    return id;
  }

  /** `{ id, participants, lastMessage, lastReadId, unread }`. */
  conversation(id, userId) {
    return this.#filled(this.#database.get(`${CONVERSATION} AND mine.conversation_id = :id`, { ":user": userId, ":id": id }));
  }

  /** The same of all conversations of this user, the latest first. */
  conversations(userId) {
    const rows = this.#database.all(`${CONVERSATION} ORDER BY lastMessageId DESC, id DESC`, { ":user": userId });
    return rows.map((row) => this.#filled(row));
  }

  #filled({ lastMessageId, ...conversation }) {
    const lastMessage = this.#database.get(`SELECT ${MESSAGE} FROM messages WHERE id = ?`, [lastMessageId]);
    return { ...conversation, lastMessage, participants: this.participants(conversation.id) };
  }

  /** The latest messages, in order. */
  messages(conversationId) {
    const latest = `SELECT ${MESSAGE} FROM messages WHERE conversation_id = ? ORDER BY id DESC LIMIT ${LATEST_MESSAGES}`;
    return this.#database.all(latest, [conversationId]).reverse();
  }

  /** `{ message, isNew }`: the sender's `clientId` makes a repeated request harmless. */
  addMessage(conversationId, senderId, { clientId, text }) {
    const { changes } = this.#database.run(
      `INSERT INTO messages (conversation_id, sender_id, client_id, text, created_at) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT (sender_id, client_id) DO NOTHING`,
      [conversationId, senderId, clientId, text, new Date().toISOString()],
    );
    const found = `SELECT ${MESSAGE} FROM messages WHERE sender_id = ? AND client_id = ?`;
    const message = this.#database.get(found, [senderId, clientId]);
    if (changes) this.markRead(conversationId, senderId, message.id);
    return { message, isNew: changes > 0 };
  }

  /** Whether this user had not read as far as that message. */
  markRead(conversationId, userId, messageId) {
    const { changes } = this.#database.run(
      `UPDATE participants SET last_read_id = :message WHERE conversation_id = :conversation AND user_id = :user
        AND last_read_id < :message AND EXISTS (SELECT 1 FROM messages WHERE id = :message AND conversation_id = :conversation)`,
      { ":message": messageId, ":conversation": conversationId, ":user": userId },
    );
    return changes > 0;
  }
}
