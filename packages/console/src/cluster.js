// What all views show of the cluster: polled every two seconds, with rates from one answer to the next.
import { signal } from "@preact/signals";
import { call } from "./api.js";
import { repeat } from "./poll.js";

const EVERY = 2_000;
/** Five minutes. */
const KEPT = 150;

/** `{ nodes, totals, history }` of the last answer. */
export const cluster = signal(null);
export const clusterProblem = signal(null);

let before = new Map();
let history = [];
let loop;

function rates(node, now) {
  const last = before.get(node.node);
  if (node.events_total === undefined) return {};
  before.set(node.node, { at: now, events: node.events_total, deliveries: node.deliveries_total, drops: node.drops_total });
  // A counter that goes back is that of a new process.
  if (!last || node.events_total < last.events) return {};
  const seconds = (now - last.at) / 1000;
  const per = (name, total) => Math.max(0, (total - last[name]) / seconds);
  return { events: per("events", node.events_total), deliveries: per("deliveries", node.deliveries_total), drops: per("drops", node.drops_total) };
}

const sum = (items, of) => items.reduce((total, item) => total + (of(item) ?? 0), 0);

function take(answer) {
  const now = performance.now();
  const nodes = answer.nodes.map((node) => ({ ...node, rates: rates(node, now) }));
  before = new Map([...before].filter(([name]) => nodes.some((node) => node.node === name)));
  const known = nodes.some((node) => node.rates.events !== undefined);
  const rate = (name) => (known ? sum(nodes, (node) => node.rates[name]) : undefined);
  const by = new Map();
  for (const { transport, protocol, connections } of nodes.flatMap((node) => node.connections_by ?? [])) {
    const name = `${protocol} ${transport}`;
    by.set(name, { protocol, transport, connections: (by.get(name)?.connections ?? 0) + connections });
  }
  const totals = {
    connections: sum(nodes, (node) => node.connections),
    sessions: sum(nodes, (node) => node.sessions),
    drops: sum(nodes, (node) => node.drops_total),
    events: rate("events"),
    deliveries: rate("deliveries"),
    dropped: rate("drops"),
    by: [...by.values()],
  };
  history = [...history, totals].slice(-KEPT);
  cluster.value = { nodes, totals, history };
  clusterProblem.value = null;
}

export function watchCluster() {
  loop = repeat(async () => {
    try {
      take(await call("cluster"));
    } catch (problem) {
      clusterProblem.value = problem;
    }
  }, EVERY);
  return () => {
    loop.stop();
    [before, history, cluster.value, clusterProblem.value] = [new Map(), [], null, null];
  };
}

export const lookAgain = () => loop?.now();
