// Why a user gets the events of a room, or one event, or why not.
import { useEffect, useState } from "preact/hooks";
import { call, query as queryOf } from "../api.js";
import { bytes, carrier, number, plural } from "../format.js";
import { stay, to } from "../router.js";
import { Ago, Card, Empty, Field, Pending, Pill, Trouble } from "../ui.jsx";

const GOOD = ["delivered", "in_room", "receives", "waiting"];
const BAD = ["dropped", "gap", "refused", "expired", "trimmed", "unknown_event"];
const kindOf = (code) => (GOOD.includes(code) ? "good" : BAD.includes(code) ? "bad" : "warn");

const words = (code) => code.replaceAll("_", " ");

/** What else is known of one session. */
function Facts({ of }) {
  const facts = [];
  const add = (name, value) => facts.push(<dt key={`${name} name`}>{name}</dt>, <dd key={name}>{value}</dd>);
  add("Client", <>{carrier(of.protocol, of.transport)}{of.address ? ` from ${of.address}` : ""}</>);
  add("Since", <Ago time={of.since} />);
  if (of.ended) add("Ended", <><Ago time={of.ended.at} />{of.ended.reason && <> · <code>{of.ended.reason}</code></>}{of.ended.resumable_until && <> · may resume until {new Date(of.ended.resumable_until).toLocaleTimeString("en")}</>}</>);
  add("In the room", <>{of.in_room ? "yes" : "no"}{of.in_room_since && <>, since <Ago time={of.in_room_since} /></>}</>);
  if (of.by || of.decided_by) add("Let in by", [of.by, of.decided_by].filter(Boolean).map((by) => <code key={by}>{by} </code>));
  if (of.refused) add("Was refused", <><code>{of.refused.code}</code> <Ago time={of.refused.at} /></>);
  if (of.outbox_bytes) add("Outbox", bytes(of.outbox_bytes));
  if (of.volatile_skipped) add("Volatile events skipped", <>{number(of.volatile_skipped.events)}, last <Ago time={of.volatile_skipped.last} /></>);
  return <dl class="facts">{facts}</dl>;
}

const Session = ({ of }) => (
  <Card
    title={of.ended ? <code>{of.session}</code> : <a href={to(["session", of.session])}><code>{of.session}</code></a>}
    aside={of.outcome ? <Pill kind={kindOf(of.outcome)}>{words(of.outcome)}</Pill> : <Pill kind={of.in_room ? "good" : "warn"}>{of.in_room ? "in the room" : "not in the room"}</Pill>}
  >
    {of.message && <p class="said">{of.message}{of.at && <> <small><Ago time={of.at} /></small></>}</p>}
    <Facts of={of} />
  </Card>
);

function Answer({ of }) {
  return (
    <>
      <section class={`card verdict ${kindOf(of.verdict)}`}>
        <Pill kind={kindOf(of.verdict)}>{words(of.verdict)}</Pill>
        <p>{of.message}</p>
        <dl class="facts">
          {of.rule && <><dt>Rule</dt><dd><code>{of.rule.name}</code>{of.rule.join && <> · join = <code>{of.rule.join}</code></>}</dd></>}
          {of.event?.event && <><dt>Event</dt><dd><code>{of.event.event}</code>{of.event.source && ` from ${of.event.source}`}{of.event.rooms?.length ? ` to ${of.event.rooms.join(", ")}` : ""}{of.event.except?.length ? ` except ${of.event.except.join(", ")}` : ""}</dd></>}
          {of.event?.at && <><dt>Accepted</dt><dd><Ago time={of.event.at} /></dd></>}
          {of.sees_back_to && <><dt>Known back to</dt><dd><Ago time={of.sees_back_to} /></dd></>}
        </dl>
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
