import { useRealtime } from "../realtime/Realtime.jsx";

const LABELS = { live: "Live", reconnecting: "Reconnecting…", offline: "Offline" };

export function Badge() {
  const { state } = useRealtime();
  const title = state === "offline" ? "New messages are fetched every few seconds" : undefined;
  return (
    <span className="badge" data-state={state} title={title} role="status">
      {LABELS[state]}
    </span>
  );
}
