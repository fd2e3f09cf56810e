// deploy/helm and deploy/kubernetes: the chart renders with Helm itself, to valid objects, and a node runs with what they give it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { ServiceMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { parse } from "yaml";
import { until, within } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { Daemon } from "../harness/node.mjs";
import { freePort } from "../harness/port.mjs";
import { startRedis } from "../harness/redis.mjs";
import { DEPLOY, ROOT, blocks, documents, read, run, seconds, withDirectory, yaml } from "./tools.mjs";

const PYTHON = path.join(ROOT, "tests/.venv/bin/python");
const RENDER = path.join(DEPLOY, "render.py");
/** The oldest release of Kubernetes that the chart allows, and the newest that the schemas know. */
const RELEASES = ["1.30.0", "1.37.0"];

/** What `python render.py template` answers to these values: `{ code, output, objects }`. */
async function render(values) {
  const child = spawn(PYTHON, [RENDER, "template"], { stdio: ["pipe", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  child.stdin.end(JSON.stringify(values));
  const code = await within(new Promise((resolve) => child.once("close", resolve)), "the rendered chart", 180_000);
  return { code, output, objects: code === 0 ? documents(output) : [] };
}

const ofKind = (objects, kind) => objects.filter((object) => object.kind === kind);
const one = (objects, kind) => {
  const found = ofKind(objects, kind);
  assert.equal(found.length, 1, kind);
  return found[0];
};

const EVERYTHING = {
  secrets: { existingSecret: "", values: { jwt_secret: "a", publish_keys: "b", redis_url: "c", backend_secret: "d" }, files: { "backend.secret_file": "backend_secret" } },
  ingress: { enabled: true, className: "nginx", annotations: { a: "b" }, tls: [{ secretName: "tls", hosts: ["app.example.com"] }] },
  image: { digest: `sha256:${"0".repeat(64)}`, pullSecrets: [{ name: "registry" }] },
  service: { type: "LoadBalancer", annotations: { a: "b" } },
  env: [{ name: "ROOMCAST_BACKEND__URL", value: "http://api:3000/roomcast" }],
  networkPolicy: { clients: [{ namespaceSelector: {} }] },
  autoscaling: { enabled: true },
  serviceMonitor: { enabled: true, labels: { release: "prometheus" } },
  prometheusRule: { enabled: true, labels: { release: "prometheus" } },
  dashboard: { enabled: true },
  priorityClassName: "important",
  nodeSelector: { disk: "ssd" },
  tolerations: [{ key: "realtime", operator: "Exists" }],
  affinity: { nodeAffinity: {} },
  podAnnotations: { a: "b" },
  podLabels: { a: "b" },
};

/** Fails if an object does not fit the schemas of these releases; the operator's kinds have their own. */
async function assertValid(objects) {
  const own = objects.filter(({ apiVersion }) => apiVersion.startsWith("monitoring.coreos.com/"));
  for (const object of own) new { ServiceMonitor, PrometheusRule }[object.kind](object).validate();
  await withDirectory(async (directory) => {
    const files = objects.filter((object) => !own.includes(object)).map((object) => {
      const file = path.join(directory, `${object.kind}-${object.metadata.name}.yaml`);
      fs.writeFileSync(file, JSON.stringify(object));
      return file;
    });
    for (const release of RELEASES) {
      const { code, output } = await run(PYTHON, ["-m", "kubernetes_validate", "--strict", "-k", release, ...files]);
      assert.equal(code, 0, output);
    }
  });
}

test("helm lint has no complaint", async () => {
  const { code, output } = await run(PYTHON, [RENDER, "lint"]);
  assert.equal(code, 0, output);
});

test("the chart is of this release", () => {
  const [, version] = /^version = "(.*)"$/m.exec(read("Cargo.toml"));
  const chart = yaml("deploy/helm/roomcast/Chart.yaml");
  assert.deepEqual([chart.appVersion, chart.version], [version, version]);
});

test("the manifests and the chart's copies are current: `make manifests`", async () => {
  await withDirectory(async (directory) => {
    const files = (of) => fs.readdirSync(of, { recursive: true }).filter((name) => name.endsWith(".yaml")).sort();
    const { code, output } = await run(PYTHON, [RENDER, "render", directory]);
    assert.equal(code, 0, output);
    const kept = path.join(DEPLOY, "kubernetes");
    assert.deepEqual(files(kept), files(directory));
    for (const name of files(kept)) assert.equal(fs.readFileSync(path.join(kept, name), "utf8"), fs.readFileSync(path.join(directory, name), "utf8"), name);
  });
  assert.equal(read("deploy/helm/roomcast/files/alerts.yaml"), read("deploy/prometheus/alerts.yaml"));
  assert.equal(read("deploy/helm/roomcast/files/dashboard.json"), read("deploy/grafana/dashboard.json"));
});

test("what is rendered is valid, with little and with everything", async () => {
  for (const values of [{}, EVERYTHING]) {
    const { code, output, objects } = await render(values);
    assert.equal(code, 0, output);
    await assertValid(objects);
  }
  const { objects } = await render(EVERYTHING);
  const kinds = [...new Set(objects.map(({ kind }) => kind))].sort();
  assert.deepEqual(kinds, ["ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule", "Secret", "Service", "ServiceMonitor"]);
  assert.deepEqual(one(objects, "PrometheusRule").spec, yaml("deploy/prometheus/alerts.yaml"));
});

test("an invalid object is refused, so the silence of the schemas means something", async () => {
  const { objects } = await render({ ...EVERYTHING });
  one(objects, "Deployment").spec.template.spec.containers[0].lifecycle.preStop.sleep.second = 5;
  await assert.rejects(assertValid(objects), /second/);
  one(objects, "ServiceMonitor").spec.endpoints = "admin";
  await assert.rejects(assertValid(ofKind(objects, "ServiceMonitor")), /endpoints/);
});

test("mistakes in the values are named", async () => {
  const mistakes = [
    [{ replica: 3 }, /replica/],
    [{ shutdown: { drain: 60 } }, /shutdown\.timeout \(40s\) must not be shorter/],
    [{ secrets: { existingSecret: "" } }, /secrets\.values\.\w+/],
    [{ secrets: { files: { "auth.secret": "jwt_secret" } } }, /auth\.secret/],
  ];
  for (const [values, words] of mistakes) {
    const { code, output } = await render(values);
    assert.notEqual(code, 0, JSON.stringify(values));
    assert.match(output, words);
  }
});

test("docs/kubernetes.md: its values render, its Secret has the keys, its table the times", async () => {
  const page = read("docs/kubernetes.md");
  const { code, output, objects } = await render(parse(blocks(page, "yaml")[0]));
  assert.equal(code, 0, output);
  await assertValid(objects);
  const { secrets, shutdown } = yaml("deploy/helm/roomcast/values.yaml");
  const given = [...blocks(page, "sh")[0].matchAll(/--from-(?:file|literal)=([a-z_]+)=/g)].map(([, key]) => key);
  assert.deepEqual(given.sort(), Object.values(secrets.files).sort());
  for (const [name, value] of Object.entries(shutdown)) assert.ok(page.includes(`\`shutdown.${name}\` (${value} s)`), name);
});

test("the pod's stop follows from the settings of the drain", async () => {
  const { objects } = await render({ shutdown: { endpoints: 7, pause: 2, drain: 90, timeout: 120 } });
  const { spec } = one(objects, "Deployment").spec.template;
  assert.equal(spec.containers[0].lifecycle.preStop.sleep.seconds, 7);
  assert.equal(spec.terminationGracePeriodSeconds, 7 + 120 + 5);
  const env = Object.fromEntries(spec.containers[0].env.map(({ name, value }) => [name, value]));
  assert.deepEqual([env.ROOMCAST_SHUTDOWN__PAUSE, env.ROOMCAST_SHUTDOWN__DRAIN, env.ROOMCAST_SHUTDOWN__TIMEOUT], ["2s", "90s", "120s"]);
});

test("selectors, ports and names of the objects fit together", async () => {
  const { objects } = await render(EVERYTHING);
  const { template, selector } = one(objects, "Deployment").spec;
  const [container] = template.spec.containers;
  const ports = container.ports.map(({ name }) => name);
  const matches = ({ matchLabels }) => Object.entries(matchLabels).every(([key, value]) => template.metadata.labels[key] === value);
  for (const labels of [selector, one(objects, "PodDisruptionBudget").spec.selector, one(objects, "NetworkPolicy").spec.podSelector, ...template.spec.topologySpreadConstraints.map((spread) => spread.labelSelector)]) assert.ok(matches(labels));
  for (const service of ofKind(objects, "Service")) {
    assert.ok(matches({ matchLabels: service.spec.selector }));
    for (const { targetPort } of service.spec.ports) assert.ok(ports.includes(targetPort));
  }
  const monitor = one(objects, "ServiceMonitor").spec;
  const monitored = ofKind(objects, "Service").filter(({ metadata }) => Object.entries(monitor.selector.matchLabels).every(([key, value]) => metadata.labels[key] === value));
  assert.deepEqual(monitored.map(({ spec }) => spec.ports[0].name), ["admin"], "one Service, or every node is scraped twice");
  assert.equal(monitored[0].metadata.labels[monitor.jobLabel], "roomcast", "the job that the alerts expect");
  assert.deepEqual(template.spec.volumes.map(({ secret, configMap }) => secret?.secretName ?? configMap.name).sort(), [one(objects, "Secret").metadata.name, objects.find(({ kind, metadata }) => kind === "ConfigMap" && !metadata.name.endsWith("dashboard")).metadata.name].sort());
  assert.deepEqual([template.spec.securityContext.runAsNonRoot, container.securityContext.readOnlyRootFilesystem, container.securityContext.allowPrivilegeEscalation], [true, true, false]);
});

test("a node runs with what the manifests give it, answers the probes, and stops in time", { timeout: 120_000 }, async () => {
  const { spec } = yaml("deploy/kubernetes/deployment.yaml").spec.template;
  const [container] = spec.containers;
  const redis = await startRedis();
  let node;
  try {
    await withDirectory(async (directory) => {
      const secrets = { jwt_secret: "a secret of at least 32 bytes, for tests", publish_keys: "a-long-random-publish-key", redis_url: redis.url };
      for (const [name, value] of Object.entries(secrets)) fs.writeFileSync(path.join(directory, name), value);
      fs.writeFileSync(path.join(directory, "roomcast.toml"), yaml("deploy/kubernetes/configmap.yaml").data["roomcast.toml"]);
      const [http, admin] = [await freePort(), await freePort()];
      // Elsewhere than in a pod, where mounts and ports are its own.
      const here = (text) => text.replace("/secrets", directory).replace("/etc/roomcast", directory).replace("0.0.0.0:8080", `127.0.0.1:${http}`).replace("0.0.0.0:9090", `127.0.0.1:${admin}`);
      const env = Object.fromEntries(container.env.map(({ name, value }) => [name, here(value)]));
      // As Kubernetes sets it for a Service named "roomcast", if links are not turned off.
      assert.equal(spec.enableServiceLinks, false);
      node = new Daemon(container.args.map(here), { ...env, ROOMCAST_SHUTDOWN__DRAIN: "1s" });
      const url = { http: `http://127.0.0.1:${http}`, admin: `http://127.0.0.1:${admin}` };
      const status = async (port, pathname) => (await request(url[port] + pathname).catch(() => undefined))?.status;
      for (const { httpGet } of [container.startupProbe, container.livenessProbe, container.readinessProbe]) {
        await until(async () => (await status(httpGet.port, httpGet.path)) === 200, () => `${httpGet.path}: ${node.output}`, 30_000);
      }
      assert.deepEqual([await status("admin", "/metrics"), await status("http", "/metrics"), await status("http", "/publish")], [200, 404, 404]);
      const { code } = await node.stop("SIGTERM", seconds(`${spec.terminationGracePeriodSeconds}s`) * 1000);
      assert.equal(code, 0, node.output);
    });
  } finally {
    if (node && !node.exit) await node.stop("SIGKILL");
    await redis.close();
  }
});
