"""Messages and the outbox, in one SQLite file: a message and its event are saved in one transaction."""

import json
import os
import sqlite3
import uuid
from contextlib import contextmanager

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (id INTEGER PRIMARY KEY, chat TEXT NOT NULL, author TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (position INTEGER PRIMARY KEY, id TEXT NOT NULL, room TEXT NOT NULL, event TEXT NOT NULL, data TEXT NOT NULL);
"""

database = sqlite3.connect(os.environ.get("DATABASE", "chat.sqlite"), check_same_thread=False)
database.row_factory = sqlite3.Row
database.executescript(SCHEMA)


@contextmanager
def transaction():
    with database:                       # commits, or rolls back after an exception
        yield database


def messages(chat):
    rows = database.execute("SELECT * FROM messages WHERE chat = ? ORDER BY id DESC LIMIT 50", [chat])
    return [dict(row) for row in rows][::-1]


def save_message(tx, chat, author, text):
    row = tx.execute("INSERT INTO messages (chat, author, text) VALUES (?, ?, ?) RETURNING *", [chat, author, text])
    return dict(row.fetchone())


def announce(tx, room, event, data):
    """Saves an event, to be published after the commit."""
    entry = [str(uuid.uuid4()), room, event, json.dumps(data)]
    tx.execute("INSERT INTO outbox (id, room, event, data) VALUES (?, ?, ?, ?)", entry)


def oldest_event():
    return database.execute("SELECT * FROM outbox ORDER BY position LIMIT 1").fetchone()


def published(position):
    with database:
        database.execute("DELETE FROM outbox WHERE position = ?", [position])
