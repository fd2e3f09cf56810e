// Who is signed in here: `{ user, token, expiresIn, realtimeUrl }`. Kept per tab, so that two tabs can be two people.
import { useSyncExternalStore } from "react";

const KEY = "session";
const listeners = new Set();
let session = JSON.parse(sessionStorage.getItem(KEY));

export const getSession = () => session;

export function setSession(next) {
  session = next;
  if (next) sessionStorage.setItem(KEY, JSON.stringify(next));
  else sessionStorage.removeItem(KEY);
  for (const listener of listeners) listener();
}

function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export const useSession = () => useSyncExternalStore(subscribe, getSession);
