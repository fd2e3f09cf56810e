// Calls of the admin API. The cookie travels by itself; the header says that it is the console that calls.
import { signal } from "@preact/signals";

/** null: not known yet. */
export const signedIn = signal(null);
/** Why the console asks for the key again. */
export const signedOutBecause = signal("");

const OWN = { "X-Roomcast-Console": "1" };

export class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function send(path, { method = "GET", body, signal } = {}) {
  const headers = body === undefined ? OWN : { ...OWN, "Content-Type": "application/json" };
  const options = { method, headers, signal, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) options.body = typeof body === "string" ? body : JSON.stringify(body);
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "unreachable", "The node does not answer. It may be restarting, or the network is down.");
  }
}

async function refusal(response) {
  const { error } = await response.json().catch(() => ({}));
  const problem = new Problem(response.status, error?.code ?? "error", error?.message ?? `The answer was ${response.status}.`);
  // What was asked before the operator signed out is answered like this too: then the reason is known.
  const mayHaveEnded = problem.code === "session_ended" ? signedIn.value !== false : response.status === 401 && signedIn.value;
  if (mayHaveEnded) {
    signedOutBecause.value = "Your session has ended. Sign in again to go on.";
    signedIn.value = false;
  }
  return problem;
}

/** The JSON of an answer, or a Problem. Paths are relative: a proxy may serve all of it below another path. */
export async function call(path, options) {
  const response = await send(path, options);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

export const query = (values) => {
  const filled = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  return filled.length ? `?${new URLSearchParams(filled)}` : "";
};

/** Reads a stream of server-sent events until it ends; `take(name, data)` gets each. */
export async function stream(path, take, signal) {
  const response = await send(path, { signal });
  if (!response.ok) throw await refusal(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value.replaceAll("\r", "");
    let end;
    while ((end = text.indexOf("\n\n")) >= 0) {
      const fields = { event: "message", data: [] };
      for (const line of text.slice(0, end).split("\n")) {
        const [, name, content] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name === "data") fields.data.push(content);
        else if (name) fields[name] = content;
      }
      text = text.slice(end + 2);
      if (fields.data.length) take(fields.event, fields.data.join("\n"));
    }
  }
}

export async function signIn(key) {
  await call("console/session", { method: "POST", body: { key } });
  signedOutBecause.value = "";
  signedIn.value = true;
}

export async function signOut() {
  try {
    await call("console/session", { method: "DELETE" });
    signedOutBecause.value = "You are signed out, on every node.";
  } catch (problem) {
    signedOutBecause.value = problem.message;
  }
  signedIn.value = false;
}

export async function findSession() {
  try {
    signedIn.value = (await call("console/session")).signed_in;
  } catch (problem) {
    signedOutBecause.value = problem.message;
    signedIn.value = false;
  }
}
