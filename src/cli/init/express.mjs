// roomcast from an Express backend, written by `roomcast init --express`. Needs Node 20 and no package but express.
import crypto from "node:crypto";
import express from "express";

const URL = process.env.ROOMCAST_URL ?? "http://127.0.0.1:8080";
const KEY = process.env.ROOMCAST_PUBLISH__KEYS?.split(",")[0];
const SECRET = process.env.ROOMCAST_BACKEND__SECRET;

/** Sends an event to everybody in a room. Rejects where roomcast is away; a repeat with the same `id` is sent once. */
export async function publish(room, event, data, { id = crypto.randomUUID(), ...more } = {}) {
  const answer = await fetch(`${URL}/publish`, {
    method: "POST",
    headers: { authorization: `Bearer ${KEY}`, "content-type": "application/json" },
    body: JSON.stringify({ room, event, data, id, ...more }),
    signal: AbortSignal.timeout(5000),
  });
  if (!answer.ok) throw new Error(`roomcast answered ${answer.status}: ${await answer.text()}`);
  return (await answer.json()).offset;
}

/**
 * What roomcast asks. `handlers.join({ user, room, claims })` answers true or false; `handlers.event(call)` answers
 * `{ ack, reply, emit, join, leave, error }`. Use it before express.json(): app.use("/roomcast", roomcast({ join }))
 */
export function roomcast(handlers = {}) {
  // The signature is over the bytes, so the body is taken as it came.
  return express.Router().post("/", express.raw({ type: "application/json", limit: "2mb" }), async (request, response) => {
    if (!isSigned(request.get("X-Roomcast-Signature"), request.body)) return response.sendStatus(401);
    const call = JSON.parse(request.body);
    try {
      if (call.type === "join") return response.json({ allow: Boolean(await handlers.join?.(call)) });
      response.json((await handlers[call.type]?.(call)) ?? {});
    } catch (error) {
      console.error(error);
      response.sendStatus(500);
    }
  });
}

function isSigned(header, body) {
  const [, time, tag] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(header ?? "") ?? [];
  if (!tag || !SECRET || !Buffer.isBuffer(body) || Math.abs(Date.now() / 1000 - Number(time)) > 300) return false;
  const expected = crypto.createHmac("sha256", SECRET).update(`${time}.`).update(body).digest();
  return crypto.timingSafeEqual(expected, Buffer.from(tag, "hex"));
}
