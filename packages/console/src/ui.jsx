// The parts that views are made of.
import { signal } from "@preact/signals";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { ago } from "./format.js";

const PATHS = {
  overview: "M3 13h4l2-7 4 12 2.500-8 1.500 3h4",
  rooms: "M4 5h16v10H9l-5 4z",
  sessions: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 20a8 6 0 0 1 16 0",
  explain: "M9.500 9a2.600 2.600 0 1 1 3.600 2.400c-.8.35-1.100.8-1.100 1.600v.5M12 17h.01M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  trace: "M3 6h5M3 12h11M3 18h7M18 9v6M15 12h6",
  publish: "M4 12 20 4l-5 16-3.500-6.500z",
  out: "M10 4H5v16h5M15 8l4 4-4 4M19 12H9",
};
export const Icon = ({ name }) => (
  <svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
    <path d={PATHS[name]} />
  </svg>
);

const KIND = {
  ok: "good", delivered: "good", yes: "good", live: "good",
  degraded: "bad", unreachable: "bad", dropped: "bad", refused: "bad", missed: "bad", lost: "bad",
  draining: "warn", drained: "warn", older_release: "warn", ended: "warn",
};
export const Pill = ({ value, kind, children }) => (
  <span class={`pill ${kind ?? KIND[value] ?? "plain"}`}>{children ?? String(value).replaceAll("_", " ")}</span>
);

export const Card = ({ title, aside, children, flush }) => (
  <section class={flush ? "card flush" : "card"}>
    {title && (
      <header class="card-head">
        <h2>{title}</h2>
        {aside}
      </header>
    )}
    {children}
  </section>
);

export const Empty = ({ title, children }) => (
  <div class="empty">
    <p class="empty-title">{title}</p>
    <p>{children}</p>
  </div>
);

/** What went wrong, and what to do. With data on the page it says that they are old. */
export const Trouble = ({ problem, stale }) =>
  problem ? (
    <div class={stale ? "trouble stale" : "trouble"} role="alert">
      <strong>{stale ? "Not up to date. " : ""}</strong>
      {problem.message} {problem.code && problem.code !== "unreachable" && <code>{problem.code}</code>}
    </div>
  ) : null;

export const Pending = ({ nodes }) =>
  nodes ? <p class="trouble stale">{nodes === 1 ? "One node" : `${nodes} nodes`} did not answer within 2 s, or are of an older release. What they have is missing here.</p> : null;

export const Loading = () => <div class="loading" role="status">Loading…</div>;

/** A moment, as how long ago it was. */
export const Ago = ({ time }) => (time ? <time dateTime={time} title={new Date(time).toLocaleString("en")}>{ago(time)}</time> : <span class="soft">never</span>);

/** Names and values; `undefined` leaves one out. */
export const Facts = ({ of, card }) => (
  <dl class={card ? "facts card" : "facts"}>
    {Object.entries(of).filter(([, value]) => value !== undefined).map(([name, value]) => <div key={name}><dt>{name}</dt><dd>{value}</dd></div>)}
  </dl>
);

export function Field({ label, hint, wide, children, ...input }) {
  const id = useId();
  return (
    <div class={wide ? "field wide" : "field"}>
      <label for={id}>{label}</label>
      {children ? children(id) : <input id={id} spellcheck={false} autocomplete="off" autocapitalize="off" {...input} />}
      {hint && <small>{hint}</small>}
    </div>
  );
}

/** A line of the last minutes. */
export function Sparkline({ values }) {
  const known = values.filter((value) => value !== undefined);
  if (known.length < 2) return <svg class="spark" viewBox="0 0 100 28" aria-hidden="true" />;
  const top = Math.max(...known, 1);
  const points = known.map((value, at) => `${((at / (known.length - 1)) * 100).toFixed(2)},${(26 - (value / top) * 24).toFixed(2)}`).join(" ");
  return (
    <svg class="spark" viewBox="0 0 100 28" preserveAspectRatio="none" aria-hidden="true">
      <polygon points={`0,28 ${points} 100,28`} />
      <polyline points={points} />
    </svg>
  );
}

/** Part of a whole. */
export const Meter = ({ value, of, label }) => {
  const part = of ? Math.min(1, value / of) : 0;
  return (
    <span class={part > 0.9 ? "meter bad" : part > 0.7 ? "meter warn" : "meter"} role="img" aria-label={`${label}: ${Math.round(part * 100)} %`}>
      <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        <rect width={part * 100} height="6" />
      </svg>
    </span>
  );
};

/** A table whose rows become cards on a phone. `columns`: `{ name, of, number }`. */
export const Table = ({ label, columns, rows, id }) => (
  <div class="table">
    <table aria-label={label}>
      <thead>
        <tr>{columns.map(({ name, number }) => <th key={name} scope="col" class={number ? "number" : ""}>{name}</th>)}</tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={id(row)}>
            {columns.map(({ name, of, number }, at) => {
              const Cell = at ? "td" : "th";
              return <Cell key={name} scope={at ? undefined : "row"} class={number ? "number" : ""} data-label={name}>{of(row)}</Cell>;
            })}
          </tr>
        ))}
      </tbody>
    </table>
  </div>
);

// What was done, for a moment.
const notes = signal([]);
let noteNumber = 0;
export function note(text, kind = "good") {
  const id = (noteNumber += 1);
  notes.value = [...notes.value.slice(-2), { id, text, kind }];
  setTimeout(() => (notes.value = notes.value.filter((other) => other.id !== id)), 6_000);
}
export const Notes = () => (
  <div class="notes" role="status" aria-live="polite">
    {notes.value.map(({ id, text, kind }) => <p key={id} class={`note ${kind}`}>{text}</p>)}
  </div>
);

// One question at a time, before anything that clients notice.
const question = signal(null);
/** `run(values)` is called when the operator agrees; `fields` are `{ name, label, value, hint }`. */
export const confirm = (asked) => (question.value = asked);
export function Question() {
  const asked = question.value;
  const dialog = useRef();
  const [values, setValues] = useState({});
  const [state, setState] = useState({});
  useEffect(() => {
    if (!asked) return;
    setValues(Object.fromEntries((asked.fields ?? []).map(({ name, value }) => [name, value ?? ""])));
    setState({});
    dialog.current.showModal();
  }, [asked]);
  if (!asked) return null;
  const close = () => (dialog.current.close(), (question.value = null));
  const submit = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      note(await asked.run(values));
      close();
    } catch (problem) {
      setState({ problem });
    }
  };
  return (
    <dialog ref={dialog} class="question" aria-labelledby="question-title" onCancel={close}>
      <form onSubmit={submit}>
        <h2 id="question-title">{asked.title}</h2>
        <p>{asked.text}</p>
        {(asked.fields ?? []).map(({ name, label, hint }) => (
          <Field key={name} label={label} hint={hint} value={values[name] ?? ""} onInput={(event) => setValues({ ...values, [name]: event.currentTarget.value })} />
        ))}
        <Trouble problem={state.problem} />
        <div class="actions end">
          <button type="button" class="quiet" onClick={close}>Cancel</button>
          <button class={asked.danger ? "danger" : "primary"} disabled={state.busy}>{state.busy ? "Working…" : asked.action}</button>
        </div>
      </form>
    </dialog>
  );
}
