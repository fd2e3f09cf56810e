// What roomcast asks and tells. docs/backend.md of roomcast has every field.
import crypto from "node:crypto";
import express from "express";

const TOLERANCE_SECONDS = 300;

/** Express routes for `backend.url`; `secret` is roomcast's `backend.secret`. */
export function webhook({ secret, database, store, roomcast }) {
  const answer = {
    /** May this user into this room? */
    join: ({ user, room }) => {
      const [, id] = /^conversation:([1-9]\d*)$/.exec(room) ?? [];
      return id && store.isParticipant(Number(id), user) ? { allow: true } : { allow: false, error: "not a participant" };
    },
    /** The user's first connection anywhere, and a while after the last one. */
    online: ({ user }) => tellContacts(user, { online: true, lastSeen: null }),
    offline: ({ user, last_seen: lastSeen }) => tellContacts(user, { online: false, lastSeen }),
  };

  function tellContacts(userId, presence) {
    const rooms = store.contacts(userId).map(({ id }) => `user:${id}`);
    database.transaction(() => {
      if (presence.lastSeen) store.sawUser(userId, presence.lastSeen);
      roomcast.queue(rooms, "presence", { userId, ...presence });
    });
    roomcast.publish();
    return {};
  }

  // The signature is over the bytes, so the body is taken as it came.
  return express.Router().post("/", express.raw({ type: "application/json", limit: "1mb" }), (request, response) => {
    if (!isSigned(request.get("X-Roomcast-Signature"), request.body, secret)) return response.sendStatus(401);
    const call = JSON.parse(request.body);
    response.json(answer[call.type]?.(call) ?? {});
  });
}

function isSigned(header, body, secret) {
  const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header ?? "") ?? [];
  if (!tag || !Buffer.isBuffer(body)) return false;
  const expected = crypto.createHmac("sha256", secret).update(`${time}.`).update(body).digest();
  const isFresh = Math.abs(Date.now() / 1000 - Number(time)) < TOLERANCE_SECONDS;
  return crypto.timingSafeEqual(expected, Buffer.from(tag, "hex")) && isFresh;
}
