// What the backend says to roomcast, and what roomcast asks it.
import { Outbox, Roomcast, createWebhook } from "@roomcast/server";

/** Of one event. */
const MOST_ROOMS = 100;

/** `queue(rooms, event, data)` inside a transaction, `wake()` after it; `presence(userIds)`; `webhook` is an Express handler. */
export function realtime({ database, store, url, key, secret }) {
  // The outbox tries again by itself, and a page does not wait for presence.
  const roomcast = new Roomcast({ url, key, retries: 0 });
  const outbox = new Outbox(roomcast, outboxTable(database), {
    maxPause: 1000,
    onError: ({ message }) => console.log(`cannot publish yet: ${message}`),
    onRecovery: () => console.log("publishing again"),
  });

  /** A session in several of the rooms gets the event once. */
  function queue(rooms, event, data) {
    for (let at = 0; at < rooms.length; at += MOST_ROOMS) {
      outbox.add(database, { rooms: rooms.slice(at, at + MOST_ROOMS), event, data });
    }
  }

  function tellContacts(userId, presence) {
    const rooms = store.contacts(userId).map(({ id }) => `user:${id}`);
    database.transaction(() => {
      if (presence.lastSeen) store.sawUser(userId, presence.lastSeen);
      queue(rooms, "presence", { userId, ...presence });
    });
    outbox.wake();
  }

  const webhook = createWebhook({
    secret,
    /** May this user into this room? */
    join: ({ user, room }) => {
      const [, id] = /^conversation:([1-9]\d*)$/.exec(room) ?? [];
      return id && store.isParticipant(Number(id), user) ? true : { allow: false, error: "not a participant" };
    },
    /** The user's first connection anywhere, and a while after the last one. */
    online: ({ user }) => tellContacts(user, { online: true, lastSeen: null }),
    offline: ({ user, last_seen: lastSeen }) => tellContacts(user, { online: false, lastSeen }),
  });

  return {
    queue,
    wake: () => outbox.wake(),
    start: () => outbox.start(),
    close: () => outbox.close(),
    /** `[{ user, online, last_seen }]` in the order of the ids. */
    presence: (userIds) => roomcast.users(userIds),
    webhook: webhook.express,
  };
}

/** The outbox's table. There is one connection, so its open transaction is the one that `save` belongs to. */
const outboxTable = (database) => ({
  save(_, entries) {
    for (const { id, event } of entries) database.run("INSERT INTO roomcast_outbox (id, event) VALUES (?, ?)", [id, event]);
  },
  oldest: (limit) => database.all("SELECT id, event FROM roomcast_outbox WHERE refused IS NULL ORDER BY position LIMIT ?", [limit]),
  remove: (ids) =>
    database.transaction(() => {
      for (const id of ids) database.run("DELETE FROM roomcast_outbox WHERE id = ?", [id]);
    }),
  refuse: (id, { message }) => database.run("UPDATE roomcast_outbox SET refused = ? WHERE id = ?", [message, id]),
});
