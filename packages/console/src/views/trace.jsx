// Follows one user, session or room live. The node sends no payloads and no tokens.
import { useEffect, useRef, useState } from "preact/hooks";
import { query as queryOf, stream } from "../api.js";
import { bytes, clock, number, plural } from "../format.js";
import { stay, to } from "../router.js";
import { Card, Empty, Field, Pill, Trouble } from "../ui.jsx";

/** Lines that the page keeps. */
const KEPT = 500;
/** Milliseconds: hundreds of lines in a second are drawn in a few steps. */
const SHOWN_EVERY = 100;

const KINDS = {
  handshake: ["good", "Handshake"], connected: ["good", "Connected"], resumed: ["good", "Resumed"], upgraded: ["good", "Upgraded"], joined: ["good", "Joined"],
  refused: ["bad", "Refused"], gap: ["bad", "Gap"], disconnected: ["warn", "Disconnected"], left: ["warn", "Left"],
  event_in: ["plain", "Event in"], event_out: ["plain", "Event out"], event: ["plain", "Event"], skipped: ["warn", "Skipped"],
  node: ["warn", "Node"], ended: ["warn", "Ended"],
};
/** What the node says of the trace itself. */
const ABOUT = {
  skipped: ({ lines }) => `${plural(lines, "line")} left out: more happened than a trace takes in a second`,
  node: ({ status }) => `is ${String(status).replaceAll("_", " ")}: what happens there is missing here`,
  ended: ({ reason }) => reason === "unauthorized"
    ? "You are signed out, or the key that you gave was replaced. Sign in again."
    : "The trace has reached trace.max_time. Start it again to go on.",
};

const room = (name, namespace) => <a key={name} class="name" href={to(["room", name], { namespace: namespace === "/" ? "" : namespace })}>{name}</a>;

/** What happened, in words. */
function Told({ of }) {
  const parts = [];
  const add = (...more) => parts.push(<span>{more}</span>);
  if (ABOUT[of.type]) return <span class="told">{ABOUT[of.type](of)}</span>;
  if (of.event) add(<code>{of.event}</code>, of.volatile ? " (volatile)" : "");
  if (of.rooms?.length) add(of.event ? "to " : "", of.rooms.flatMap((name, at) => [at ? ", " : "", room(name, of.namespace)]));
  if (of.outcome) add(of.outcome);
  if (of.receivers !== undefined && of.receivers !== null) add(plural(of.receivers, "receiver"));
  if (of.by) add("by ", of.by);
  if (of.reason) add(<code>{of.reason}</code>);
  if (of.message) add(of.message);
  if (of.protocol || of.transport) add([of.protocol, of.transport].filter(Boolean).join(", "));
  if (of.address) add(of.address);
  if (of.bytes !== undefined) add(bytes(of.bytes));
  if (of.offset) add("offset ", <code>{of.offset}</code>);
  return <span class="told">{parts}</span>;
}

const Line = ({ of }) => {
  const [kind, label] = KINDS[of.type] ?? ["plain", of.type.replaceAll("_", " ")];
  const at = of.at ?? of.at_ms;
  return (
    <li>
      <time>{at ? clock(at) : ""}</time>
      <Pill kind={kind}>{label}</Pill>
      <div>
        <Told of={of} />
        <small>
          {of.nodes && typeof of.nodes === "object" && Object.keys(of.nodes).length > 1 && <span>{Object.entries(of.nodes).map(([node, count]) => `${count} on ${node}`).join(", ")}</span>}
          {of.user && <span>user <a class="name" href={to("sessions", { user: of.user })}>{of.user}</a>{of.claimed ? " (says the refused token)" : ""}</span>}
          {of.session && <span>session <a href={to(["session", of.session])}><code>{of.session}</code></a></span>}
          {of.node && <span>node <code>{of.node}</code></span>}
        </small>
      </div>
    </li>
  );
};

const SUBJECTS = [["user", "User", "7"], ["session", "Session", "its id"], ["room", "Room", "chat:42"]];
const subjectOf = (values) => SUBJECTS.find(([name]) => values[name])?.[0];

export function Trace({ query }) {
  const [kind, setKind] = useState(subjectOf(query) ?? "user");
  const [value, setValue] = useState(query[kind] ?? "");
  const [lines, setLines] = useState([]);
  const [state, setState] = useState({});
  const running = useRef();
  const count = useRef(0);
  const waiting = useRef([]);
  const flush = useRef();
  const stop = () => {
    clearTimeout(flush.current);
    if (flush.current) show();
    running.current?.abort();
    running.current = undefined;
    setState((last) => ({ ...last, live: false }));
  };
  useEffect(() => stop, []);

  const show = () => {
    flush.current = undefined;
    const fresh = waiting.current.splice(0).reverse();
    setLines((last) => [...fresh, ...last].slice(0, KEPT));
  };
  const take = (name, data) => {
    let told;
    try {
      told = JSON.parse(data);
    } catch {
      return;
    }
    const line = { ...told, type: told.type ?? name, key: (count.current += 1) };
    if (line.type === "opened") return setState((last) => ({ ...last, opened: true }));
    if (line.type === "node" && line.status === "following") return;
    waiting.current.push(line);
    flush.current ??= setTimeout(show, SHOWN_EVERY);
  };

  const start = async (event) => {
    event?.preventDefault();
    stop();
    if (!value.trim()) return setState({ problem: { message: "Name a user, a session or a room to follow." } });
    stay("trace", { [kind]: value.trim() });
    const abort = (running.current = new AbortController());
    waiting.current = [];
    setLines([]);
    setState({ live: true, of: `${kind} ${value.trim()}` });
    try {
      await stream(`trace${queryOf({ [kind]: value.trim() })}`, take, abort.signal);
      if (!abort.signal.aborted) setState((last) => ({ ...last, live: false, over: true }));
    } catch (problem) {
      if (!abort.signal.aborted) setState({ problem });
    }
  };
  // A link that names somebody begins at once.
  useEffect(() => void (value && start()), []);

  const [, label, placeholder] = SUBJECTS.find(([name]) => name === kind);
  return (
    <>
      <h1 tabIndex={-1}>Live trace</h1>
      <form class="filters" onSubmit={start}>
        <Field label="Follow a">
          {(id) => (
            <select id={id} value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
              {SUBJECTS.map(([name, label]) => <option key={name} value={name}>{label.toLowerCase()}</option>)}
            </select>
          )}
        </Field>
        <Field label={label} placeholder={placeholder} value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        {/* Keys: one button that became the other within its own click would submit the form. */}
        {state.live ? <button key="stop" type="button" onClick={stop}>Stop</button> : <button key="start" class="primary">Start</button>}
        {state.live && lines.length > 0 && <button type="button" class="quiet" onClick={() => setLines([])}>Clear</button>}
      </form>
      <Trouble problem={state.problem} />
      <Card
        flush
        title={state.of ? `What happens to ${state.of}` : "Nothing is followed yet"}
        aside={state.of && (state.live ? <Pill kind="good">live</Pill> : <Pill kind="warn">{state.over ? "ended by the node" : "stopped"}</Pill>)}
      >
        {lines.length === 0 ? (
          <Empty title={state.live ? state.opened ? "Waiting for something to happen" : "Asking the nodes…" : "See what happens to one client, as it happens"}>
            {state.live ? "Handshakes, joins, events, refusals and closes appear here, newest first." : "No payloads and no tokens are shown, nothing is logged, and the trace ends when you leave this page."}
          </Empty>
        ) : (
          <ol class="trace" aria-label="Newest first">{lines.map((line) => <Line key={line.key} of={line} />)}</ol>
        )}
        {lines.length >= KEPT && <footer class="more"><span class="soft">The last {number(KEPT)} are shown.</span></footer>}
      </Card>
    </>
  );
}
Trace.title = "Trace";
