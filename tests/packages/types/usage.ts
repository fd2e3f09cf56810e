// How the package is used from TypeScript, and what the compiler must refuse. Nothing here runs.
import express from "express";
import fastify from "fastify";
import { createServer } from "node:http";
import type { Socket } from "socket.io-client";
import {
  BatchError,
  MemoryOutboxStore,
  Outbox,
  Roomcast,
  RoomcastError,
  createWebhook,
  verifyWebhook,
  type ListenEvents,
  type OutboxStore,
  type RoomcastEvent,
} from "@roomcast/server";

interface Message {
  id: number;
  text: string;
}

/** Shared with the client. */
interface Events {
  new_message: Message;
  conversation_read: { conversationId: number; lastReadId: number };
  reload: undefined;
  moved: (x: number, y: number) => void;
}

interface ClientEvents {
  send_message: { chatId: number; text: string };
}

const roomcast = new Roomcast<Events>({ url: "http://localhost:8080", key: "k", timeout: 1000, retries: 2 });
const message: Message = { id: 9, text: "hi" };

// ---- Publishing
const { offset }: { offset: string | null } = await roomcast.publish("conversation:42", "new_message", message);
await roomcast.publish(["user:7", "user:8"], "conversation_read", { conversationId: 42, lastReadId: 9 });
await roomcast.publish("user:7", "reload");
await roomcast.publish("user:7", "new_message", message, { except: ["session"], id: "m-9", namespace: "/chat", volatile: true });
await roomcast.publish({ room: "board:1", event: "moved", args: [1, 2] }, { signal: AbortSignal.timeout(100) });
await roomcast.publish({ room: "board:1", event: "new_message", args: [message] });

// @ts-expect-error: not the data of this event
await roomcast.publish("conversation:42", "new_message", { id: "nine", text: "hi" });
// @ts-expect-error: the data is missing
await roomcast.publish("conversation:42", "new_message");
// @ts-expect-error: there is no such event
await roomcast.publish("conversation:42", "new_massage", message);
// @ts-expect-error: it has no data
await roomcast.publish("user:7", "reload", message);
// @ts-expect-error: two arguments go into `args`
await roomcast.publish("board:1", "moved", 1);
// @ts-expect-error: two arguments
await roomcast.publish({ room: "board:1", event: "moved", args: [1] });
// @ts-expect-error: `room` or `rooms`
await roomcast.publish({ room: "a", rooms: ["b"], event: "new_message", data: message });
// @ts-expect-error: no room
await roomcast.publish({ event: "new_message", data: message });
// @ts-expect-error: no such option
await roomcast.publish("user:7", "new_message", message, { exept: ["session"] });

const events: RoomcastEvent<Events>[] = [{ room: "a", event: "new_message", data: message }, { rooms: ["a", "b"], event: "reload" }];
const offsets: (string | null)[] = (await roomcast.publishAll(events)).map((result) => result.offset);
async function* generated(): AsyncGenerator<RoomcastEvent<Events>> {
  yield { room: "a", event: "new_message", data: message };
}
await roomcast.publishAll(generated()).catch((error: unknown) => {
  if (error instanceof BatchError) return error.results.filter((result) => result instanceof RoomcastError && result.transient);
  throw error;
});
// @ts-expect-error: the data of another event
await roomcast.publishAll([{ room: "a", event: "new_message", data: { conversationId: 1, lastReadId: 2 } }]);

// Without types every event is allowed.
const untyped = new Roomcast();
await untyped.publish("room", "anything", { at: [1, 2] });
await untyped.publish("room", "nothing");
await untyped.publish({ room: "room", event: "two", args: [1, "2"] });

// ---- Commands and presence
const { sessions, nodes_pending }: { sessions: number; nodes_pending?: number } = await roomcast.join({ user: 7, rooms: ["conversation:42"] });
await roomcast.leave({ session: "s", room: "conversation:42", namespace: "/chat" });
await roomcast.disconnect({ in: "conversation:42" });
const { until }: { until: string } = await roomcast.revoke({ user: 7, for: "1h" });
await roomcast.revoke({ jti: until });
// @ts-expect-error: a user or a token
await roomcast.revoke({ user: 7, jti: "x" });
// @ts-expect-error: exactly one of user, session, in
await roomcast.join({ user: 7, session: "s", room: "conversation:42" });
// @ts-expect-error: whom?
await roomcast.disconnect({});
// @ts-expect-error: which room?
await roomcast.join({ user: 7 });
const { users }: { users: string[] } = await roomcast.room("conversation:42", { namespace: "/chat" });
const lastSeen: (string | null)[] = (await roomcast.users([7, "8"])).map((user) => user.last_seen);
const online: boolean = (await roomcast.user(7)).online;

// ---- Webhooks
const webhook = createWebhook<ClientEvents, Events>({
  secret: ["new", "old"],
  tolerance: 60,
  join: ({ user, room, claims }) => (user === 7 && claims.admin ? true : { allow: false, error: `not ${room}` }),
  events: {
    send_message: async ({ args: [{ chatId, text }], user, id }) => {
      const chat: number = chatId;
      return { ack: [{ ok: true, id, user }], emit: [{ room: `chat:${chat}`, event: "new_message", data: { id: 1, text } }], reply: [{ event: "moved", args: [1, 2] }] };
    },
  },
  online: ({ user }) => user.toUpperCase(),
  offline: ({ last_seen }) => Date.parse(last_seen),
  vacated: ({ room }) => room,
  onError: (error, call) => console.error(error, call?.type),
});
createWebhook<ClientEvents>({
  // @ts-expect-error: clients do not emit this
  events: { sent_message: () => ({}) },
});
createWebhook<ClientEvents>({
  // @ts-expect-error: there is no such field
  events: { send_message: ({ args: [{ room }] }) => ({ ack: [room] }) },
});
createWebhook<ClientEvents, Events>({
  // @ts-expect-error: not the data of this event
  events: { send_message: () => ({ emit: [{ room: "a", event: "new_message", data: { id: "nine" } }] }) },
});
createWebhook<ClientEvents, Events>({
  // @ts-expect-error: an answer goes to the namespace of the caller
  events: { send_message: () => ({ emit: [{ room: "a", event: "reload", namespace: "/chat" }] }) },
});
// @ts-expect-error: a join is allowed or not
createWebhook({ join: () => "yes" });
createWebhook({ events: { anything: ({ args }) => ({ ack: args }) } });

const app = express();
app.use("/roomcast", webhook.express);
app.post("/roomcast", webhook.express);
createServer(webhook.express);
await fastify().register(webhook.fastify, { path: "/roomcast" });
// A Next route handler.
export const POST: (request: Request) => Promise<Response> = webhook.fetch;
const { status }: { status: number } = await webhook.handle("{}", null);
const call = await verifyWebhook(new Uint8Array(), "t=1,v1=00", "secret", { tolerance: 10 });
if (call.type === "offline") call.last_seen satisfies string;
// @ts-expect-error: only `offline` has it
call.last_seen;

// ---- The outbox
interface Transaction {
  query(text: string, values?: unknown[]): Promise<{ rows: { id: string; event: string }[] }>;
}
declare const database: Transaction & { transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T> };

const store: OutboxStore<Transaction, Promise<void>> = {
  async save(tx, entries) {
    for (const { id, event } of entries) await tx.query("INSERT INTO roomcast_outbox (id, event) VALUES ($1, $2)", [id, event]);
  },
  oldest: async (limit) => (await database.query("SELECT id, event FROM roomcast_outbox ORDER BY seq LIMIT $1", [limit])).rows,
  remove: (ids) => database.query("DELETE FROM roomcast_outbox WHERE id = ANY($1)", [ids]),
  refuse: (id, error) => database.query("UPDATE roomcast_outbox SET refused = $2 WHERE id = $1", [id, error.message]),
};
const outbox = new Outbox(roomcast, store, { onError: (error) => console.error(error.message) }).start();
await database.transaction(async (tx) => {
  await outbox.add(tx, { room: "conversation:42", event: "new_message", data: message });
});
outbox.wake();
await outbox.drain();
// @ts-expect-error: not a transaction
outbox.add(database.transaction, events);
// @ts-expect-error: not the data of this event
outbox.add(database, { room: "conversation:42", event: "new_message", data: { id: "nine" } });
// @ts-expect-error: the store has no `remove`
new Outbox(roomcast, { save: () => {}, oldest: () => [], refuse: () => {} });

const memory = new MemoryOutboxStore();
const inMemory = new Outbox(roomcast, memory);
await memory.transaction((tx) => inMemory.add(tx, events));

// ---- The client
declare const socket: Socket<ListenEvents<Events>>;
socket.on("new_message", ({ id, text }) => [id satisfies number, text satisfies string]);
socket.on("moved", (x, y) => x + y);
socket.on("reload", () => {});
// @ts-expect-error: there is no such event
socket.on("new_massage", () => {});

export { offset, offsets, sessions, nodes_pending, users, lastSeen, online, status };
