// A client that must notice nothing of what happens to others.
import assert from "node:assert/strict";
import { published } from "./publish.mjs";
import { tokenFor } from "./token.mjs";

/** Resolves with a function: `await unharmed()` shows that the client is still connected and receives events. */
export async function bystander({ io }, node) {
  const client = await io(node, { token: tokenFor("bystander") }).connected();
  return async () => {
    await published(node, { room: "user:bystander", event: "still here", data: 1 });
    await client.event("still here");
    assert.deepEqual([client.connects, client.disconnects], [1, []]);
  };
}
