// A real Prometheus on a free port that scrapes nodes every second.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { until } from "./deadline.mjs";
import { request } from "./http.mjs";
import { Daemon } from "./node.mjs";
import { freePort } from "./port.mjs";

const configuration = (nodes, rules) => `
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [${rules.map((file) => JSON.stringify(file)).join(", ")}]
scrape_configs:
  - job_name: roomcast
    static_configs: [{ targets: [${nodes.map((node) => `"127.0.0.1:${node.port}"`).join(", ")}] }]
`;

class Prometheus extends Daemon {
  constructor(port, directory) {
    const flags = [`--config.file=${directory}/prometheus.yml`, `--storage.tsdb.path=${directory}/data`, `--web.listen-address=127.0.0.1:${port}`];
    super(flags, {}, "prometheus");
    Object.assign(this, { directory, url: `http://127.0.0.1:${port}` });
  }

  /** The `data` of an answer of the API. */
  async api(pathname, parameters = {}) {
    const answer = (await request(`${this.url}/api/v1/${pathname}?${new URLSearchParams(parameters)}`)).json();
    if (answer.status !== "success") throw new Error(`${pathname} ${JSON.stringify(parameters)}: ${answer.error}`);
    return answer.data;
  }

  /** The series that an expression has now. */
  query = async (expression) => (await this.api("query", { query: expression })).result;

  async close() {
    await this.stop("SIGTERM", 30_000);
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Prometheus with these nodes as the job `roomcast`, and these files of rules. */
export async function startPrometheus(nodes, rules = []) {
  const port = await freePort();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-prometheus-"));
  fs.writeFileSync(path.join(directory, "prometheus.yml"), configuration(nodes, rules));
  const prometheus = new Prometheus(port, directory);
  await until(async () => {
    if (prometheus.exit) throw new Error(`prometheus ended: ${prometheus.output}`);
    return (await request(`${prometheus.url}/-/ready`).catch(() => undefined))?.status === 200;
  }, "prometheus ready", 30_000);
  return prometheus;
}
