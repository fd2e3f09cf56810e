// Where the console is: `#/sessions?user=7`. Links are ordinary ones, so back, bookmarks and new tabs work.
import { signal } from "@preact/signals";

function read() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return { view: parts[0] ?? "overview", rest: parts.slice(1), query: Object.fromEntries(new URLSearchParams(query)) };
}

export const route = signal(read());
addEventListener("hashchange", () => (route.value = read()));

const filled = (query) => Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null && value !== false);

export function to(parts, query = {}) {
  const text = new URLSearchParams(filled(query)).toString();
  return `#/${[parts].flat().map(encodeURIComponent).join("/")}${text ? `?${text}` : ""}`;
}

export const go = (parts, query) => (location.hash = to(parts, query));
/** The same view with another query, without an entry in the history. */
export function stay(parts, query) {
  history.replaceState(null, "", to(parts, query));
  route.value = read();
}
