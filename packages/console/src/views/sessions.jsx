import { call } from "../api.js";
import { bytes, carrier, number, plural } from "../format.js";
import { usePoll } from "../poll.js";
import { stay, to } from "../router.js";
import { Ago, Card, confirm, Empty, Facts, Field, Loading, Pending, Pill, Table, Trouble } from "../ui.jsx";
import { More, usePages } from "./pages.jsx";

const COLUMNS = [
  { name: "Session", of: (entry) => <a href={to(["session", entry.session])}><code>{entry.session}</code></a> },
  { name: "User", of: (entry) => (entry.user === null ? <span class="soft">nobody</span> : <span class="name">{entry.user}</span>) },
  { name: "Client", of: (entry) => carrier(entry.protocol, entry.transport) },
  { name: "Node", of: (entry) => <code>{entry.node}</code> },
  { name: "Rooms", number: true, of: (entry) => number(entry.room_count) },
  { name: "Outbox", number: true, of: (entry) => bytes(entry.outbox_bytes) },
  { name: "Since", number: true, of: (entry) => <Ago time={entry.since} /> },
];

export function Sessions({ query: { user = "", room = "" } }) {
  const pages = usePages("sessions", "sessions", { user, room });
  const set = (change) => stay("sessions", { user, room, ...change });
  return (
    <>
      <h1 tabIndex={-1}>Sessions</h1>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Field label="User" type="search" placeholder="7" value={user} onInput={(event) => set({ user: event.currentTarget.value })} />
        <Field label="In room" type="search" placeholder="chat:42" value={room} onInput={(event) => set({ room: event.currentTarget.value })} />
        {user && <button type="button" class="danger-quiet" onClick={() => askRevoke(user)}>Revoke {user}…</button>}
      </form>
      <Trouble problem={pages.problem} stale={Boolean(pages.items)} />
      <Card flush>
        {!pages.items && !pages.problem && <Loading />}
        {pages.items?.length === 0 && (
          <Empty title={user || room ? "No live session fits" : "Nobody is connected"}>
            {user || room ? <>User and room are compared whole, with case. <a href={to("explain", { user, room })}>Explain</a> knows more: when the user was here last, and why they left.</> : "Sessions that wait to be resumed are not listed."}
          </Empty>
        )}
        {pages.items?.length > 0 && <Table label="Sessions" columns={COLUMNS} rows={pages.items} id={(entry) => entry.session} />}
        <More {...pages} word="session" />
      </Card>
      <Pending nodes={pages.pending} />
    </>
  );
}
Sessions.title = "Sessions";

function askDisconnect(session) {
  confirm({
    title: "Disconnect this session?",
    text: "It ends now. A Socket.IO client does not reconnect by itself; its token stays good, so it may connect again.",
    action: "Disconnect",
    danger: true,
    run: async () => {
      const { sessions } = await call("disconnect", { method: "POST", body: { session } });
      return sessions ? "The session has ended." : "The session had ended already.";
    },
  });
}

function askRevoke(user) {
  confirm({
    title: `Revoke the tokens of ${user}?`,
    text: "All sessions of this user end, on every node, and every token that was issued before now is refused. Tokens that you issue afterwards are accepted.",
    action: "Revoke",
    danger: true,
    fields: [{ name: "for", label: "For", hint: "How long older tokens are refused: 1h, 7d. Empty: auth.revoke_for." }],
    run: async (values) => {
      const answer = await call("revoke", { method: "POST", body: { user, for: values.for.trim() } });
      return `Ended ${plural(answer.sessions, "session")} of ${user}; older tokens are refused until ${new Date(answer.until).toLocaleString("en")}.`;
    },
  });
}

export function Session({ rest: [id] }) {
  const { data, problem } = usePoll((signal) => call(`sessions/${encodeURIComponent(id)}`, { signal }), 2_000, id);
  const gone = problem?.code === "unknown_session";
  return (
    <>
      <p class="crumbs"><a href={to("sessions")}>Sessions</a></p>
      <h1 tabIndex={-1} class="id">{id}</h1>
      {gone ? (
        <Card>
          <Empty title={data ? "This session has ended" : "No live session has this id"}>
            {data?.user ? <><a href={to("sessions", { user: data.user })}>Other sessions of {data.user}</a></> : "It may have ended, or wait to be resumed."}
          </Empty>
        </Card>
      ) : (
        <Trouble problem={problem} stale={Boolean(data)} />
      )}
      {!data && !problem && <Loading />}
      {data && !gone && <Details of={data} />}
    </>
  );
}
Session.title = "Session";

const Details = ({ of: session }) => (
  <>
    <div class="actions">
      <a class="button" href={to("trace", { session: session.session })}>Trace</a>
      {session.user !== null && <a class="button" href={to("sessions", { user: session.user })}>All of {session.user}</a>}
      <button class="danger-quiet" onClick={() => askDisconnect(session.session)}>Disconnect…</button>
      {session.user !== null && <button class="danger-quiet" onClick={() => askRevoke(session.user)}>Revoke the user…</button>}
    </div>
    <Facts card of={{
      User: session.user === null ? <span class="soft">nobody: no token, or one that names nobody</span> : <span class="name">{session.user}</span>,
      Client: carrier(session.protocol, session.transport),
      Address: <code>{session.address ?? "—"}</code>,
      Namespace: <code>{session.namespace}</code>,
      Node: <code>{session.node}</code>,
      Since: <Ago time={session.since} />,
      Outbox: bytes(session.outbox_bytes),
      "Last message in": <Ago time={session.last_event_in} />,
      "Last event out": <Ago time={session.last_event_out} />,
      "Last refusal": session.last_refusal ? <><Pill kind="bad">{session.last_refusal.code}</Pill> <Ago time={session.last_refusal.at} /></> : <span class="soft">none</span>,
    }} />
    <Card title={`Rooms (${number(session.room_count)})`}>
      {session.rooms.length === 0 ? (
        <Empty title="It is in no room">So it gets only what is sent to its own id. Rooms come from <code>[[rooms]]</code> rules, the token, its own joins, and your backend.</Empty>
      ) : (
        <ul class="chips">
          {session.rooms.map((room) => (
            <li key={room}>
              <a class="name" href={to(["room", room], { namespace: session.namespace === "/" ? "" : session.namespace })}>{room}</a>
              {session.user !== null && <a class="button small" href={to("explain", { user: session.user, room })} aria-label={`Explain what ${session.user} gets in ${room}`}>Explain</a>}
            </li>
          ))}
        </ul>
      )}
    </Card>
  </>
);
