// deploy/prometheus and deploy/grafana: valid, tested, and every query finds series in a real Prometheus that scrapes nodes.
import assert from "node:assert/strict";
import path from "node:path";
import { test } from "node:test";
import { startBackend } from "../harness/backend.mjs";
import { until } from "../harness/deadline.mjs";
import { startPrometheus } from "../harness/prometheus.mjs";
import { publish, published } from "../harness/publish.mjs";
import { scenario } from "../harness/scenario.mjs";
import { nodesOn } from "../harness/sessions.mjs";
import { tokenFor } from "../harness/token.mjs";
import { DEPLOY, read, run, yaml } from "./tools.mjs";

const ALERTS = path.join(DEPLOY, "prometheus/alerts.yaml");
const rules = yaml("deploy/prometheus/alerts.yaml").groups.flatMap((group) => group.rules);
const dashboard = JSON.parse(read("deploy/grafana/dashboard.json"));
const panels = dashboard.panels.filter((panel) => panel.type !== "row");
const METRIC = /\broomcast_[a-z_]+/g;

/** What docs/metrics.md lists; histograms also have the names of their series. */
const documented = new Set(
  [...read("docs/metrics.md").matchAll(/^\| `(roomcast_[a-z_]+)` \| (\w+)/gm)].flatMap(([, name, type]) =>
    type === "histogram" ? ["_bucket", "_sum", "_count"].map((end) => name + end) : [name]),
);

test("promtool accepts the rules and the configuration", async () => {
  for (const check of [["check", "rules", ALERTS], ["check", "config", path.join(DEPLOY, "prometheus/prometheus.yaml")]]) {
    const { code, output } = await run("promtool", check);
    assert.equal(code, 0, output);
  }
});

test("each alert fires on its symptom, and stays silent beside it", async () => {
  const { code, output } = await run("promtool", ["test", "rules", path.join(DEPLOY, "prometheus/alerts.test.yaml")]);
  assert.equal(code, 0, output);
  const tests = read("deploy/prometheus/alerts.test.yaml");
  for (const { alert } of rules) assert.match(tests, new RegExp(`\\b${alert}\\b`), `${alert} has a test`);
});

test("each alert has a severity, a summary, and a runbook with all its parts", () => {
  const sections = new Map(read("docs/runbooks.md").split("\n## ").slice(1).map((text) => [text.split("\n")[0].trim(), text]));
  assert.ok(rules.length >= 8);
  for (const { alert, labels, annotations } of rules) {
    assert.ok(["critical", "warning"].includes(labels.severity), alert);
    assert.ok(annotations.summary && annotations.description, alert);
    assert.equal(annotations.runbook, `docs/runbooks.md#${alert.toLowerCase()}`);
    for (const part of ["**Symptom**", "**Meaning**", "**Look**", "**Do**"]) assert.ok(sections.get(alert)?.includes(part), `${alert}: ${part}`);
  }
  const alerts = rules.map(({ alert }) => alert);
  const described = [...sections.keys()].filter((name) => name.startsWith("Roomcast"));
  assert.deepEqual(described, alerts, "a runbook for each alert, in the same order");
});

test("dashboard and alerts name documented metrics only, and the dashboard shows all of them", () => {
  const used = new Set([...JSON.stringify(dashboard).matchAll(METRIC), ...JSON.stringify(rules).matchAll(METRIC)].map(([name]) => name));
  assert.deepEqual([...used].filter((name) => !documented.has(name)), []);
  const shown = JSON.stringify(dashboard);
  const metrics = [...documented].filter((name) => !/_(sum|count)$/.test(name));
  assert.deepEqual(metrics.filter((name) => !shown.includes(name)), []);
  for (const [alert] of shown.matchAll(/\bRoomcast[A-Z]\w+/g)) assert.ok(rules.some((rule) => rule.alert === alert), alert);
});

/** An expression whose comparisons answer 0 or 1 instead of removing series. */
const always = (expression) => expression.replace(/\s(==|!=|>=|<=|>|<)\s(?!bool)/g, " $1 bool ");

/** A panel's query as Grafana sends it for all jobs and nodes. */
const filled = (expression) => expression.replaceAll("$job", ".+").replaceAll("$instance", ".+").replaceAll("$__rate_interval", "10s");

/** Two nodes with clients of every kind, and `traffic`, a round of what they do. */
async function busyNodes(s) {
  const backend = await startBackend();
  s.keep(backend);
  backend.answer = ({ type }) => (type === "event" ? { ack: ["done"] } : { allow: true });
  const forward = { event: "ask", forward: true };
  const store = await s.redis();
  const nodes = await nodesOn(s, store, 2, {
    // Some metrics are those of a log with partitions.
    redis: { url: store.url, partitions: 2 },
    ...backend.config({ notify: ["online", "offline"] }),
    rooms: [{ match: "room:<name>", join: "ask" }],
    on: [forward, { event: "join", join: "room:{0}", ack: [{ ok: true }] }],
  });
  const token = tokenFor("7");
  const clients = [s.ws(nodes[0], { token }), s.ws(nodes[1], { token })];
  for (const client of clients) await (await client.welcomed()).join("room:a");
  const io = await s.io(nodes[0], { token }).connected();
  await io.join("room:a");
  s.sse(nodes[1], { token, rooms: ["room:a"] });
  s.ws(nodes[0], { token: "wrong" });
  const traffic = async () => {
    await published(nodes[0], { room: "room:a", event: "tick", data: 1 });
    await publish(nodes[1], { room: 7, event: "refused" });
    await io.ask("ask", 1);
  };
  return { nodes, traffic };
}

scenario("every query of the dashboard and the alerts finds series", async (s) => {
  const { nodes, traffic } = await busyNodes(s);
  const prometheus = s.serve(await startPrometheus(nodes, [ALERTS]));
  await until(async () => (await prometheus.query("up == 1")).length === nodes.length, "both nodes scraped", 60_000);

  // A rate needs two scrapes; a ratio and a quantile something that was counted between them.
  const finds = (what, expression, is = () => true) =>
    until(async () => (await traffic(), (await prometheus.query(expression)).some(is)), () => `${what}: ${expression}`, 60_000);
  for (const { title, targets } of panels) {
    assert.ok(targets.length > 0, title);
    for (const { expr } of targets) await finds(title, filled(expr));
  }
  for (const { alert, expr } of rules) await finds(alert, always(expr));
  // What the traffic moves shows numbers, not only series.
  for (const metric of ["publish_to_write_seconds_bucket", "backend_request_seconds_bucket"]) {
    const quantile = `histogram_quantile(0.99, sum by (le) (rate(roomcast_${metric}[10s])))`;
    await finds("a duration", quantile, ({ value: [, number] }) => Number(number) > 0);
  }

  const rulesLoaded = async () => (await prometheus.api("rules")).groups.flatMap((group) => group.rules);
  // "unknown" until they are evaluated for the first time.
  const loaded = await until(async () => {
    const all = await rulesLoaded();
    return all.every(({ health }) => health !== "unknown") && all;
  }, "every rule evaluated", 60_000);
  assert.deepEqual(loaded.map(({ name, health }) => [name, health]), rules.map(({ alert }) => [alert, "ok"]));
  for (const { query: { query } } of dashboard.templating.list.filter(({ type }) => type === "query")) {
    const [, series, label] = /^label_values\((.*), (\w+)\)$/.exec(filled(query));
    await until(async () => (await prometheus.api(`label/${label}/values`, { "match[]": series })).length > 0, query, 60_000);
  }
}, { timeout: 600_000 });

scenario("an alert fires by itself when Redis is away", async (s) => {
  const store = await s.redis();
  const [node] = await nodesOn(s, store, 1);
  const prometheus = s.serve(await startPrometheus([node], [ALERTS]));
  await until(async () => (await prometheus.query("roomcast_redis_up == 1")).length === 1, "Redis up", 60_000);
  await store.stop();
  const active = async () => (await prometheus.api("alerts")).alerts.find(({ labels }) => labels.alertname === "RoomcastRedisDown");
  const alert = await until(active, "an alert that is pending or firing", 60_000);
  assert.match(alert.annotations.summary, /does not reach Redis/);
}, { timeout: 240_000 });
