import { useSyncExternalStore } from "react";

function subscribe(listener) {
  document.addEventListener("visibilitychange", listener);
  return () => document.removeEventListener("visibilitychange", listener);
}

export const usePageVisible = () => useSyncExternalStore(subscribe, () => document.visibilityState === "visible");
