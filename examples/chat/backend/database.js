// SQLite in one file. This build of it (WebAssembly) installs everywhere without a compiler.
import fs from "node:fs";
import sqlite from "node-sqlite3-wasm";

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    last_seen TEXT
  );
  CREATE TABLE IF NOT EXISTS conversations (
    id INTEGER PRIMARY KEY AUTOINCREMENT
  );
  CREATE TABLE IF NOT EXISTS participants (
    conversation_id INTEGER NOT NULL REFERENCES conversations (id),
    user_id TEXT NOT NULL REFERENCES users (id),
    last_read_id INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (conversation_id, user_id)
  );
  CREATE INDEX IF NOT EXISTS participants_by_user ON participants (user_id);
  CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    conversation_id INTEGER NOT NULL REFERENCES conversations (id),
    sender_id TEXT NOT NULL REFERENCES users (id),
    client_id TEXT NOT NULL,
    text TEXT NOT NULL,
    created_at TEXT NOT NULL,
    UNIQUE (sender_id, client_id)
  );
  CREATE INDEX IF NOT EXISTS messages_by_conversation ON messages (conversation_id, id);
  CREATE TABLE IF NOT EXISTS roomcast_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    event TEXT NOT NULL,
    refused TEXT
  );
`;

/** Opens the file, which one process at a time may do; `transaction(work)` commits all of `work` or nothing. */
export function openDatabase(file) {
  // Left behind where the last process was killed. The caller has its port by now, so no other one runs.
  fs.rmSync(`${file}.lock`, { recursive: true, force: true });
  const database = new sqlite.Database(file);
  // This build recovers from a crash by a write-ahead log only, and has that only where nobody else reads the file.
  database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
  database.exec(SCHEMA);
  database.transaction = (work) => {
    database.exec("BEGIN");
    try {
      const result = work();
      database.exec("COMMIT");
      return result;
    } catch (error) {
      if (database.inTransaction) database.exec("ROLLBACK");
      throw error;
    }
  };
  return database;
}
