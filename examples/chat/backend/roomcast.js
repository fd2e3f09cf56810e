// All that the backend says to roomcast, by HTTP.
import { randomUUID } from "node:crypto";

const BATCH = 200;
/** Of one event, and of one question. */
const MOST_ROOMS = 100;
const MOST_USERS = 1000;
const RETRY_MS = 1000;
const TIMEOUT_MS = 5000;

/**
 * Events are written to an outbox in the same transaction as what they tell of, and published after the commit. So a
 * crash between the two, or a roomcast that is away, loses nothing.
 */
export class Roomcast {
  #database;
  #url;
  #key;
  #publishing;
  #trouble;

  constructor(database, { url, key }) {
    this.#database = database;
    this.#url = url;
    this.#key = key;
  }

  /** To be called inside a transaction; `rooms` is a list, and a session in several of them gets the event once. */
  queue(rooms, event, data) {
    for (let at = 0; at < rooms.length; at += MOST_ROOMS) {
      // The id makes a repeat harmless: roomcast sends it once.
      const queued = { id: randomUUID(), rooms: rooms.slice(at, at + MOST_ROOMS), event, data };
      this.#database.run("INSERT INTO outbox (event) VALUES (?)", [JSON.stringify(queued)]);
    }
  }

  /** Publishes what is queued, in order, and goes on trying until roomcast has taken it. */
  publish() {
    this.#publishing ??= this.#drain()
      .then(() => this.#say(undefined))
      .catch((error) => {
        this.#say(error.message);
        this.retry = setTimeout(() => this.publish(), RETRY_MS);
      })
      .finally(() => (this.#publishing = undefined));
  }

  async #drain() {
    for (;;) {
      const batch = this.#database.all(`SELECT id, event FROM outbox ORDER BY id LIMIT ${BATCH}`);
      if (batch.length === 0) return;
      const { results } = await this.#post("/publish", { events: batch.map(({ event }) => JSON.parse(event)) });
      this.#database.transaction(() => {
        const taken = batch.filter((_, at) => !results[at].error);
        for (const { id } of taken) this.#database.run("DELETE FROM outbox WHERE id = ?", [id]);
      });
      const refused = results.find(({ error }) => error);
      if (refused) throw new Error(`an event was not taken: ${refused.error.message}`);
    }
  }

  /** `[{ user, online, last_seen }]` in the order of the ids. */
  async presence(userIds) {
    const known = [];
    for (let at = 0; at < userIds.length; at += MOST_USERS) {
      known.push(...(await this.#post("/users", { users: userIds.slice(at, at + MOST_USERS) })).users);
    }
    return known;
  }

  async #post(path, body) {
    const answer = await fetch(this.#url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${this.#key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    if (!answer.ok) throw new Error(`roomcast answered ${answer.status}: ${await answer.text()}`);
    return answer.json();
  }

  /** Once for each change, not once for each attempt. */
  #say(trouble) {
    if (trouble !== this.#trouble) console.log(trouble ? `cannot publish yet: ${trouble}` : "publishing again");
    this.#trouble = trouble;
  }

  close() {
    clearTimeout(this.retry);
  }
}
