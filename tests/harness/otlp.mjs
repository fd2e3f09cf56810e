// A receiver of OpenTelemetry data. Another process reads the bytes, with the package that OpenTelemetry publishes.
import { spawn } from "node:child_process";
import path from "node:path";
import { until } from "./deadline.mjs";

const PYTHON = path.join(import.meta.dirname, "../.venv/bin/python");
const RECEIVER = path.join(import.meta.dirname, "otlp_receiver.py");
// Python may take long to start.
const PYTHON_DEADLINE = 60_000;

const hexOf = (base64) => (base64 ? Buffer.from(base64, "base64").toString("hex") : undefined);
const valueOf = ({ stringValue, intValue, doubleValue }) => stringValue ?? (intValue === undefined ? doubleValue : Number(intValue));
const tableOf = (attributes = []) => Object.fromEntries(attributes.map(({ key, value }) => [key, valueOf(value)]));

class Receiver {
  requests = [];
  errors = "";
  #rest = "";

  constructor(status) {
    this.process = spawn(PYTHON, [RECEIVER, String(status)]);
    this.process.stdout.on("data", (chunk) => {
      const lines = (this.#rest + chunk).split("\n");
      this.#rest = lines.pop();
      for (const line of lines.map((text) => JSON.parse(text))) {
        if (line.port) this.port = line.port;
        else this.requests.push(line);
      }
    });
    this.process.stderr.on("data", (chunk) => (this.errors += chunk));
    this.process.once("close", () => (this.ended = true));
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  #groups = (pathname, groups, scopes, items) =>
    this.requests
      .filter((request) => request.path === pathname)
      .flatMap((request) => request.message[groups] ?? [])
      .flatMap((group) => (group[scopes] ?? []).flatMap((scope) => (scope[items] ?? []).map((item) => ({ item, resource: tableOf(group.resource.attributes) }))));

  /** All spans that came, with their ids in hexadecimal. */
  spans() {
    return this.#groups("/v1/traces", "resourceSpans", "scopeSpans", "spans").map(({ item, resource }) => ({
      ...item,
      resource,
      trace: hexOf(item.traceId),
      id: hexOf(item.spanId),
      parent: hexOf(item.parentSpanId),
      attributes: tableOf(item.attributes),
      took: Number(BigInt(item.endTimeUnixNano) - BigInt(item.startTimeUnixNano)) / 1e6,
    }));
  }

  /** All metrics that came, the newest last. */
  metrics = () => this.#groups("/v1/metrics", "resourceMetrics", "scopeMetrics", "metrics").map(({ item, resource }) => ({ ...item, resource }));

  /** The spans of a trace with this name, once there are `count`. */
  span = (name, trace, count = 1) =>
    until(
      () => {
        const found = this.spans().filter((span) => span.name === name && (trace === undefined || span.trace === trace));
        return found.length >= count && found;
      },
      () => `${count} spans ${name} of ${trace} in ${JSON.stringify(this.spans())} ${this.errors}`,
    );

  close() {
    this.process.kill();
  }
}

/** `status`: what it answers. */
export async function startReceiver(status = 200) {
  const receiver = new Receiver(status);
  await until(() => {
    if (receiver.ended) throw new Error(`the receiver ended: ${receiver.errors}`);
    return receiver.port;
  }, () => `the receiver's port ${receiver.errors}`, PYTHON_DEADLINE);
  return receiver;
}
