// POST /publish and the commands, with the key.
import assert from "node:assert/strict";
import { KEY } from "./config.mjs";
import { post } from "./http.mjs";

const bearer = (key) => (key === null ? {} : { authorization: `Bearer ${key}` });

/** The answer of `POST {path}`; `key: null` sends none. */
export function command(node, path, body, { key = KEY, headers = {} } = {}) {
  return post(`${node.url}${path}`, body, { ...bearer(key), ...headers });
}

/** The answer of a publish. */
export const publish = (node, body, options) => command(node, "/publish", body, options);

/** Publishes, expects 200, and resolves with the offset or the results of a batch. */
export async function published(node, body, options) {
  const answer = await publish(node, body, options);
  assert.equal(answer.status, 200, answer.text);
  const { offset, results } = answer.json();
  return results ?? offset;
}

/** Expects an error in roomcast's format with this status and, where given, this code. */
export function assertError(answer, status, code) {
  assert.equal(answer.status, status, `${answer.status} ${answer.text}`);
  const { error } = answer.json();
  assert.match(error.code, /^[a-z][a-z0-9_]*$/);
  assert.ok(error.message.length > 5, answer.text);
  if (code) assert.equal(error.code, code, answer.text);
  return error;
}
