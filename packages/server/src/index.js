export { Roomcast } from "./client.js";
export { BatchError, RoomcastError } from "./error.js";
export { MemoryOutboxStore, Outbox } from "./outbox.js";
export { SignatureError, createWebhook, signWebhook, verifyWebhook } from "./webhook.js";
