// Lists with cursors: the first page is asked for again and again, and stays as long as it may grow.
import { useEffect, useState } from "preact/hooks";
import { call, query } from "../api.js";
import { plural } from "../format.js";
import { usePoll } from "../poll.js";
import { Trouble } from "../ui.jsx";

const PAGE = 50;
const EVERY = 4_000;

/** `{ items, problem, pending, cursor, more }` of `GET /{path}`; `name` is the key of its list. */
export function usePages(path, name, filters) {
  const key = JSON.stringify(filters);
  const [rest, setRest] = useState({ key, items: [] });
  const first = usePoll((signal) => call(path + query({ ...filters, limit: PAGE }), { signal }), EVERY, key);
  useEffect(() => setRest({ key, items: [] }), [key]);
  const later = rest.key === key ? rest : { items: [] };
  const cursor = later.items.length ? later.cursor : first.data?.cursor;
  const more = async () => {
    setRest({ ...later, key, busy: true });
    try {
      const answer = await call(path + query({ ...filters, limit: PAGE, cursor }));
      setRest({ key, items: [...later.items, ...answer[name]], cursor: answer.cursor });
    } catch (problem) {
      setRest({ ...later, key, problem });
    }
  };
  const items = first.data && [...first.data[name], ...later.items];
  return { items, cursor, more, busy: later.busy, failed: later.problem, problem: first.problem, pending: first.data?.nodes_pending };
}

export const More = ({ items, cursor, more, busy, failed, word }) =>
  items?.length ? (
    <footer class="more">
      <span class="soft">{plural(items.length, word)}{cursor ? " so far" : ""}</span>
      <Trouble problem={failed} />
      {cursor && <button onClick={more} disabled={busy}>{busy ? "Loading…" : "Show more"}</button>}
    </footer>
  ) : null;
