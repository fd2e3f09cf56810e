// What a backend does with @roomcast/server, for any runtime: publishes, publishes from an outbox, answers a signed question.
// Prints what came of it. Needs ROOMCAST_URL, ROOMCAST_PUBLISH__KEYS and ROOMCAST_BACKEND__SECRET.
import { MemoryOutboxStore, Outbox, Roomcast, createWebhook, signWebhook } from "../../packages/server/src/index.js";

const roomcast = new Roomcast();
const first = await roomcast.publish("room:a", "said", { text: "hi" }, { id: "once" });
const again = await roomcast.publish("room:a", "said", { text: "hi" }, { id: "once" });

const store = new MemoryOutboxStore();
const outbox = new Outbox(roomcast, store);
await store.transaction((tx) => outbox.add(tx, { room: "room:a", event: "said", data: { text: "saved" } }));
await outbox.drain();

const webhook = createWebhook({ join: ({ user }) => user === "7" });
const body = JSON.stringify({ type: "join", id: "1", room: "room:a", namespace: "/", user: "7", claims: {}, session: "s", rooms: [], time: 0 });
const good = await signWebhook(body, globalThis.process.env.ROOMCAST_BACKEND__SECRET);
const ask = (signature) => webhook.fetch(new Request("http://backend/roomcast", { method: "POST", body, headers: { "x-roomcast-signature": signature } }));
const allowed = await ask(good);
const forged = await ask(good.replace(/v1=.*/, `v1=${"0".repeat(64)}`));

console.log(JSON.stringify({
  runtime: "Deno" in globalThis ? "deno" : "Bun" in globalThis ? "bun" : "node",
  repeated: first.offset === again.offset,
  left: (await store.oldest(10)).length,
  allowed: await allowed.json(),
  forged: forged.status,
}));
