import { call, query } from "../api.js";
import { number, plural } from "../format.js";
import { usePoll } from "../poll.js";
import { go, stay, to } from "../router.js";
import { Card, confirm, Empty, Facts, Field, Loading, Pending, Table, Trouble } from "../ui.jsx";
import { More, usePages } from "./pages.jsx";

const linkTo = ({ room, namespace }) => to(["room", room], { namespace: namespace === "/" ? "" : namespace });

const COLUMNS = [
  { name: "Room", of: (entry) => <a href={linkTo(entry)} class="name">{entry.room}</a> },
  { name: "Namespace", of: (entry) => <code>{entry.namespace}</code> },
  { name: "Sessions", number: true, of: (entry) => number(entry.connections) },
];

export function Rooms({ query: { prefix = "" } }) {
  const pages = usePages("rooms", "rooms", { prefix });
  return (
    <>
      <h1 tabIndex={-1}>Rooms</h1>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Field label="Name begins with" type="search" placeholder="chat:" value={prefix} onInput={(event) => stay("rooms", { prefix: event.currentTarget.value })} />
      </form>
      <Trouble problem={pages.problem} stale={Boolean(pages.items)} />
      <Card flush>
        {!pages.items && !pages.problem && <Loading />}
        {pages.items?.length === 0 && (
          <Empty title={prefix ? `No room begins with “${prefix}”` : "No room has members"}>
            A room is there while somebody is in it. Names are compared from their first character, with case. <a href={to("sessions")}>See who is connected</a>.
          </Empty>
        )}
        {pages.items?.length > 0 && <Table label="Rooms" columns={COLUMNS} rows={pages.items} id={(entry) => `${entry.namespace} ${entry.room}`} />}
        <More {...pages} word="room" />
      </Card>
      <Pending nodes={pages.pending} />
    </>
  );
}
Rooms.title = "Rooms";

function askEmpty(room, namespace, sessions) {
  confirm({
    title: "Disconnect everybody in this room?",
    text: `${plural(sessions, "session")} in ${room} end on every node. Socket.IO clients do not reconnect by themselves, and their tokens stay good.`,
    action: "Disconnect them",
    danger: true,
    run: async () => `Disconnected ${plural((await call("disconnect", { method: "POST", body: { in: room, namespace } })).sessions, "session")}.`,
  });
}

export function Room({ rest: [room], query: { namespace = "/" } }) {
  const { data, problem } = usePoll((signal) => call(`rooms/${encodeURIComponent(room)}${query({ namespace })}`, { signal }), 4_000, `${namespace} ${room}`);
  const is = namespace === "/" ? {} : { namespace };
  return (
    <>
      <p class="crumbs"><a href={to("rooms")}>Rooms</a></p>
      <h1 tabIndex={-1} class="name">{room}</h1>
      <Trouble problem={problem} stale={Boolean(data)} />
      {!data && !problem && <Loading />}
      {data && (
        <>
          <div class="actions">
            <a class="button" href={to("sessions", { room })}>Its sessions</a>
            <a class="button" href={to("trace", { room })}>Trace</a>
            <a class="button" href={to("publish", { room, ...is })}>Publish a test event</a>
            <button class="danger-quiet" disabled={!data.connections} onClick={() => askEmpty(room, namespace, data.connections)}>Disconnect all…</button>
          </div>
          <Facts card of={{ Sessions: number(data.connections), Users: number(data.users.length), Namespace: <code>{data.namespace}</code> }} />
          <Pending nodes={data.nodes_pending} />
          <Card title="Users">
            {data.users.length === 0 ? (
              <Empty title={data.connections ? "Only clients without a user" : "Nobody is in this room"}>
                {data.connections ? "Their tokens name nobody, or they came without one." : <>Events for it reach nobody. <a href={to("explain", { room })}>Explain</a> says why a user is not in it.</>}
              </Empty>
            ) : (
              <ul class="chips">
                {data.users.map((user) => (
                  <li key={user}>
                    <a class="name" href={to("sessions", { user })}>{user}</a>
                    <button class="small" onClick={() => go("explain", { user, room, ...is })} aria-label={`Explain what ${user} gets here`}>Explain</button>
                  </li>
                ))}
              </ul>
            )}
          </Card>
        </>
      )}
    </>
  );
}
Room.title = "Room";
