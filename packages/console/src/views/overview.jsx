import { call } from "../api.js";
import { cluster, clusterProblem, lookAgain } from "../cluster.js";
import { bytes, carrier, milliseconds, number, plural, rate, span } from "../format.js";
import { Card, confirm, Empty, Loading, Meter, Pill, Sparkline, Table, Trouble } from "../ui.jsx";

const Tile = ({ label, value, unit, note, values, kind }) => (
  <div class={kind ? `tile ${kind}` : "tile"}>
    <h2>{label}</h2>
    <p class="tile-value">{value}<small>{unit}</small></p>
    {values ? <Sparkline values={values} /> : <span class="spark" />}
    <p class="tile-note">{note}</p>
  </div>
);

function Tiles({ totals, history, nodes }) {
  const values = (name) => history.map((past) => past[name]);
  const outbox = nodes.reduce((total, node) => total + (node.outbox_bytes ?? 0), 0);
  return (
    <div class="tiles">
      <Tile label="Connections" value={number(totals.connections)} values={values("connections")} note={`${plural(totals.sessions, "session")}, with those that may resume`} />
      <Tile label="Events in" value={rate(totals.events)} unit="/s" values={values("events")} note="accepted, from whatever source" />
      <Tile label="Deliveries" value={rate(totals.deliveries)} unit="/s" values={values("deliveries")} note={`${bytes(outbox)} wait in outboxes`} />
      <Tile label="Drops" value={rate(totals.dropped)} unit="/s" values={values("dropped")} kind={totals.dropped > 0 ? "bad" : ""} note={`${number(totals.drops)} since the nodes started`} />
    </div>
  );
}

function Transports({ totals }) {
  const all = totals.by.reduce((sum, { connections }) => sum + connections, 0);
  let from = 0;
  return (
    <Card title="Connections by transport">
      <svg class="share" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">
        {totals.by.map(({ protocol, transport, connections }, at) => {
          const width = all ? (connections / all) * 100 : 0;
          from += width;
          return <rect key={`${protocol} ${transport}`} class={`s${at}`} x={from - width} width={width} height="4" />;
        })}
      </svg>
      <ul class="legend">
        {totals.by.map(({ protocol, transport, connections }, at) => (
          <li key={`${protocol} ${transport}`}>
            <span class={`dot s${at}`} />
            <span class="grow">{carrier(protocol, transport)}</span>
            <b>{number(connections)}</b>
          </li>
        ))}
      </ul>
    </Card>
  );
}

function askDrain(node) {
  const others = cluster.value.nodes.some((other) => other.node !== node.node && other.status === "ok");
  const where = others ? "to the other nodes, where they resume" : "away: no other node is ready, so they wait until one is";
  confirm({
    title: `Drain node ${node.node}?`,
    text: `It refuses new clients, and sends its ${plural(node.connections, "connection")} ${where}. This cannot be taken back: afterwards, stop or restart the process.`,
    action: "Drain the node",
    danger: true,
    fields: [{ name: "over", label: "Over", value: "60s", hint: "The time over which connections are closed: 30s, 5m. Longer is gentler for the other nodes." }],
    run: async ({ over }) => {
      const answer = await call("drain", { method: "POST", body: { over, node: node.node } });
      lookAgain();
      return answer.begun ? `Node ${node.node} drains over ${over}.` : `Node ${node.node} was drained before; that goes on.`;
    },
  });
}

const Drain = ({ node }) => {
  const { drain } = node;
  if (!drain) return <button class="small" onClick={() => askDrain(node)} aria-label={`Drain node ${node.node}`}>Drain…</button>;
  const closed = drain.connections - drain.left;
  if (drain.done) return <Pill kind="warn">drained</Pill>;
  return <span class="drain"><Meter value={closed} of={drain.connections || 1} label={`Drain of ${node.node}`} /><small>{number(drain.left)} left</small></span>;
};

const COLUMNS = [
  { name: "Node", of: (node) => <><code>{node.node}</code>{node.this && <small class="tag">answers you</small>}{node.needs_restart?.length > 0 && <small class="tag warn" title={`Changed, and not in force before a restart: ${node.needs_restart.join(", ")}`}>restart due</small>}</> },
  { name: "Status", of: (node) => <Pill value={node.status} /> },
  { name: "Connections", number: true, of: (node) => number(node.connections) },
  { name: "Rooms", number: true, of: (node) => number(node.rooms) },
  { name: "Events/s", number: true, of: (node) => rate(node.rates.events) },
  { name: "Deliveries/s", number: true, of: (node) => rate(node.rates.deliveries) },
  { name: "Lag", number: true, of: (node) => <span class={node.lag_ms > 1000 ? "bad-text" : ""}>{milliseconds(node.lag_ms)}</span> },
  { name: "Memory", number: true, of: (node) => <span class="memory">{bytes(node.memory_bytes)}<Meter value={node.memory_bytes} of={node.memory_limit_bytes} label="Memory of limits.memory" /></span> },
  { name: "Up", number: true, of: (node) => span(node.uptime_seconds) },
  { name: "Version", of: (node) => node.version ?? "—" },
  { name: "Drain", of: (node) => (node.status === "unreachable" || node.status === "older_release" ? null : <Drain node={node} />) },
];

export function Overview() {
  const state = cluster.value;
  return (
    <>
      <h1 tabIndex={-1} class="hidden">Overview</h1>
      <Trouble problem={clusterProblem.value} stale={Boolean(state)} />
      {!state && !clusterProblem.value && <Loading />}
      {state && (
        <>
          <Tiles {...state} />
          {new Set(state.nodes.map((node) => node.config).filter(Boolean)).size > 1 && (
            <p class="trouble stale">The nodes run different configurations: {state.nodes.filter((node) => node.config).map((node) => `${node.node} has ${node.config}`).join(", ")}. Reload those that are behind.</p>
          )}
          <div class="columns">
            <Card title="Nodes" flush aside={<Actions nodes={state.nodes} />}>
              <Table label="Nodes" columns={COLUMNS} rows={state.nodes} id={(node) => node.node} />
            </Card>
            <Transports totals={state.totals} />
          </div>
          {state.totals.connections === 0 && (
            <Card>
              <Empty title="Nobody is connected yet">
                Point a client at this node, or look at <code>roomcast_refusals_total</code> on <a href="metrics">/metrics</a>: a refused client is counted there, and the log says why.
              </Empty>
            </Card>
          )}
        </>
      )}
    </>
  );
}
Overview.title = "Overview";

/** Reads the configuration again, on the node that answers. */
function askReload(node) {
  confirm({
    title: `Reload the configuration of ${node.node}?`,
    text: "The node reads its files again. With a mistake nothing changes, and each is named. Sessions whose rooms the new rules no longer allow lose them. Other nodes keep theirs until they are reloaded too.",
    action: "Reload",
    run: async () => {
      const { changed, needs_restart: waiting } = await call("reload", { method: "POST", body: { node: node.node } });
      lookAgain();
      const keys = (list) => list.map(({ key }) => key).join(", ");
      const restart = waiting.length ? ` Waits for a restart: ${keys(waiting)}.` : "";
      return (changed.length ? `In force: ${keys(changed)}.` : "Nothing has changed.") + restart;
    },
  });
}

const Actions = ({ nodes }) => {
  const node = nodes.find((node) => node.this);
  return node ? <button class="small" onClick={() => askReload(node)}>Reload configuration…</button> : null;
};
