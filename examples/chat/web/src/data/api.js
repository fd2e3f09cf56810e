// The REST API. An answer that is no answer is an error; 401 signs out.
import { getSession, setSession } from "./session.js";

const TIMEOUT_MS = 10_000;

async function request(method, path, body) {
  const token = getSession()?.token;
  const response = await fetch(`/api${path}`, {
    method,
    headers: {
      ...(token && { authorization: `Bearer ${token}` }),
      ...(body && { "content-type": "application/json" }),
    },
    body: body && JSON.stringify(body),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  if (response.status === 401 && getSession()?.token === token) setSession(null);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

export const get = (path) => request("GET", path);
export const post = (path, body = {}) => request("POST", path, body);
