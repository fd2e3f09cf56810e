// PostgreSQL in this process, so that the example needs nothing installed. With a server of your own this is `pg`.
import { PGlite, type Transaction } from "@electric-sql/pglite";
import type { OutboxStore } from "@roomcast/server";

export interface Message {
  id: number;
  chat: string;
  author: string;
  text: string;
}

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS messages (id serial PRIMARY KEY, chat text NOT NULL, author text NOT NULL, text text NOT NULL);
  CREATE TABLE IF NOT EXISTS roomcast_outbox (
    position bigserial PRIMARY KEY, id text NOT NULL UNIQUE, event text NOT NULL, refused text
  );`;

// Routes are bundled apart; the one database of the process is in what they all see.
const shared = globalThis as typeof globalThis & { chatDatabase?: Promise<PGlite> };
const opened = () => (shared.chatDatabase ??= open());

async function open() {
  const database = await PGlite.create(process.env.DATABASE ?? ".data");
  await database.exec(SCHEMA);
  return database;
}

export const db = {
  messages: async (chat: string) =>
    (await (await opened()).query<Message>("SELECT * FROM messages WHERE chat = $1 ORDER BY id DESC LIMIT 50", [chat])).rows.reverse(),

  /** A chat is open to whoever is signed in. Yours is the place to look the membership up. */
  isMember: async (user: unknown, room: string) => typeof user === "string" && room.startsWith("chat:"),

  transaction: async <T>(work: (tx: Transaction) => Promise<T>): Promise<T> => (await opened()).transaction(work) as Promise<T>,

  saveMessage: async (tx: Transaction, chat: string, author: string, text: string) =>
    (await tx.query<Message>("INSERT INTO messages (chat, author, text) VALUES ($1, $2, $3) RETURNING *", [chat, author, text])).rows[0],
};

export const outboxTable: OutboxStore<Transaction> = {
  async save(tx, entries) {
    for (const { id, event } of entries) await tx.query("INSERT INTO roomcast_outbox (id, event) VALUES ($1, $2)", [id, event]);
  },
  async oldest(limit) {
    const sql = "SELECT id, event FROM roomcast_outbox WHERE refused IS NULL ORDER BY position LIMIT $1";
    return (await (await opened()).query<{ id: string; event: string }>(sql, [limit])).rows;
  },
  remove: async (ids) => void (await (await opened()).query("DELETE FROM roomcast_outbox WHERE id = ANY($1)", [ids])),
  refuse: async (id, error) =>
    void (await (await opened()).query("UPDATE roomcast_outbox SET refused = $2 WHERE id = $1", [id, error.message])),
};
