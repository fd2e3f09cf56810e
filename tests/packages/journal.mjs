// A database of one file for the outbox tests: each line is a transaction, written at once, and read again after a crash.
import fs from "node:fs";

export class Journal {
  messages = [];
  entries = [];

  constructor(file) {
    this.file = file;
    for (const line of fs.existsSync(file) ? fs.readFileSync(file, "utf8").split("\n") : []) {
      // A line that broke off was not committed.
      try {
        this.#apply(JSON.parse(line));
      } catch {}
    }
  }

  #apply({ message, entries = [], removed = [] }) {
    if (message !== undefined) this.messages.push(message);
    this.entries.push(...entries);
    if (removed.length > 0) this.entries = this.entries.filter(({ id }) => !removed.includes(id));
  }

  #commit(transaction) {
    fs.appendFileSync(this.file, `\n${JSON.stringify(transaction)}`);
    this.#apply(transaction);
  }

  /** Commits what `work` puts into the transaction. */
  transaction(work) {
    const transaction = {};
    work(transaction);
    this.#commit(transaction);
  }

  save = (transaction, entries) => void (transaction.entries = entries);
  oldest = (limit) => this.entries.slice(0, limit);
  remove = (ids) => this.#commit({ removed: ids });
  refuse = (id, error) => {
    throw new Error(`${id} was refused: ${error.message}`);
  };
}
