import { after } from "next/server";
import { Outbox, Roomcast } from "@roomcast/server";
import { db, outboxTable } from "../../../../db";
import { currentUser } from "../../../../session";

const outbox = new Outbox(new Roomcast(), outboxTable);   // ROOMCAST_URL, ROOMCAST_PUBLISH__KEYS

export async function POST(request: Request, { params }: { params: Promise<{ id: string }> }) {
  const [{ id }, { text }, user] = await Promise.all([params, request.json(), currentUser()]);
  if (!user) return new Response(null, { status: 401 });
  const message = await db.transaction(async (tx) => {
    const saved = await db.saveMessage(tx, id, user.id, String(text));
    await outbox.add(tx, { room: `chat:${id}`, event: "new_message", data: saved });
    return saved;
  });
  after(() => outbox.drain());                            // after the answer; what fails is published by the next one
  return Response.json(message, { status: 201 });
}
