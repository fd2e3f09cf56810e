// Why a user gets the events of a room, or one event, or why not.
import { useEffect, useState } from "preact/hooks";
import { call, query as queryOf } from "../api.js";
import { bytes, carrier, clock, number, plural } from "../format.js";
import { stay, to } from "../router.js";
import { Ago, Card, Empty, Facts, Field, Pending, Pill, Trouble } from "../ui.jsx";

const GOOD = ["delivered", "in_room", "waiting"];
const BAD = ["dropped", "gap", "other_log"];
const kindOf = (code) => (GOOD.includes(code) ? "good" : BAD.includes(code) ? "bad" : "warn");

const words = (code) => code.replaceAll("_", " ");

/** What else is known of one session. */
const Known = ({ of }) => (
  <Facts of={{
    Client: <>{carrier(of.protocol, of.transport)}{of.address && <small> from {of.address}</small>}</>,
    Node: of.node ? <code>{of.node}</code> : undefined,
    Since: <Ago time={of.since} />,
    Ended: of.ended ? <><Ago time={of.ended.at} /> {of.ended.reason && <code>{of.ended.reason}</code>}</> : undefined,
    "May resume until": of.ended?.resumable_until ? clock(of.ended.resumable_until) : undefined,
    "In the room": of.in_room ? of.in_room_since ? <>since <Ago time={of.in_room_since} /></> : "yes" : "no",
    "Let in by": of.by || of.decided_by ? <code>{[of.by, of.decided_by].filter(Boolean).join(", ")}</code> : undefined,
    "Was refused": of.refused ? <><code>{of.refused.code}</code> <Ago time={of.refused.at} /></> : undefined,
    Outbox: of.outbox_bytes ? bytes(of.outbox_bytes) : undefined,
    "Volatile events skipped": of.volatile_skipped ? <>{number(of.volatile_skipped.events)}, last <Ago time={of.volatile_skipped.last} /></> : undefined,
  }} />
);

const Session = ({ of }) => (
  <Card
    title={of.ended ? <code>{of.session}</code> : <a href={to(["session", of.session])}><code>{of.session}</code></a>}
    aside={of.outcome ? <Pill kind={kindOf(of.outcome)}>{words(of.outcome)}</Pill> : <Pill kind={of.in_room ? "good" : "warn"}>{of.in_room ? "in the room" : "not in the room"}</Pill>}
  >
    {of.message && <p class="said">{of.message}{of.at && <> <small><Ago time={of.at} /></small></>}</p>}
    <Known of={of} />
  </Card>
);

function Answer({ of }) {
  return (
    <>
      <section class={`card verdict ${kindOf(of.verdict)}`}>
        <Pill kind={kindOf(of.verdict)}>{words(of.verdict)}</Pill>
        <p>{of.message}</p>
        <Facts of={{
          Rule: of.rule ? <><code>{of.rule.name}</code>{of.rule.join && <> · join = <code>{of.rule.join}</code></>}</> : undefined,
          Event: of.event?.event ? <><code>{of.event.event}</code>{of.event.source && <small> from {of.event.source}</small>}</> : undefined,
          "Sent to": of.event?.rooms?.length ? of.event.rooms.join(", ") : undefined,
          Except: of.event?.except?.length ? of.event.except.join(", ") : undefined,
          Accepted: of.event?.at ? <Ago time={of.event.at} /> : undefined,
          "Known back to": of.sees_back_to ? <Ago time={of.sees_back_to} /> : undefined,
        }} />
      </section>
      <Pending nodes={of.nodes_pending} />
      {of.sessions.map((session) => <Session key={`${session.session} ${session.since} ${session.ended?.at}`} of={session} />)}
      {of.sessions_left_out > 0 && <p class="soft">{plural(of.sessions_left_out, "more session")} of this user are not shown.</p>}
      <div class="actions">
        <a class="button" href={to("trace", { user: of.user })}>Trace {of.user}</a>
        <a class="button" href={to("sessions", { user: of.user })}>Sessions of {of.user}</a>
        <a class="button" href={to(["room", of.room], { namespace: of.namespace === "/" ? "" : of.namespace })}>The room</a>
      </div>
    </>
  );
}

export function Explain({ query: { user = "", room = "", event = "", namespace = "" } }) {
  const [values, setValues] = useState({ user, room, event, namespace });
  const [state, setState] = useState({});
  const set = (name) => (input) => setValues({ ...values, [name]: input.currentTarget.value });
  const ask = async (submit) => {
    submit?.preventDefault();
    const asked = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, value.trim()]));
    if (!asked.user || !asked.room) return setState({ problem: { message: "Name the user and the room." } });
    stay("explain", asked);
    setState((last) => ({ ...last, busy: true }));
    try {
      setState({ answer: await call(`explain${queryOf(asked)}`) });
    } catch (problem) {
      setState({ problem });
    }
  };
  useEffect(() => void (values.user && values.room && ask()), []);
  return (
    <>
      <h1 tabIndex={-1}>Explain</h1>
      <p class="lead">Why does a user get the events of a room, or why not?</p>
      <form class="filters" onSubmit={ask}>
        <Field label="User" placeholder="7" value={values.user} onInput={set("user")} />
        <Field label="Room" placeholder="chat:42" value={values.room} onInput={set("room")} />
        <Field label="Event, by its offset" placeholder="any" value={values.event} onInput={set("event")} />
        {namespace && <Field label="Namespace" value={values.namespace} onInput={set("namespace")} />}
        <button class="primary" disabled={state.busy}>{state.busy ? "Asking…" : "Explain"}</button>
      </form>
      <Trouble problem={state.problem} />
      <div role="status" class="answers">
        {state.answer ? (
          <Answer of={state.answer} />
        ) : (
          !state.problem && (
            <Card>
              <Empty title="From the log and what every node remembers">
                With an offset, as <code>/publish</code> answers it: delivered when and to which session, waiting in an outbox, joined too late, excepted, dropped, or lost to a gap. Without: whether the user is in the room now, and what decided that.
              </Empty>
            </Card>
          )
        )}
      </div>
    </>
  );
}
Explain.title = "Explain";
