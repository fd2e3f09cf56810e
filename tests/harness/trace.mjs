// A reader of GET /trace, with Node's own HTTP client: it records the lines as objects.
import assert from "node:assert/strict";
import http from "node:http";
import { KEY } from "./config.mjs";
import { until } from "./deadline.mjs";
import { nodesOn } from "./sessions.mjs";

/** `count` nodes on one Redis, each of which knows the others. */
export async function cluster(s, count, more, store) {
  const nodes = await nodesOn(s, store ?? (await s.redis()), count, more);
  for (const node of nodes) await until(async () => (await known(node)) === count, `${count} nodes`);
  return nodes;
}

const known = async (node) => (await node.get("/cluster", { authorization: `Bearer ${KEY}` })).json().nodes.length;

export class Trace {
  lines = [];
  text = "";
  ended = false;

  constructor(node, query, headers = { authorization: `Bearer ${KEY}` }) {
    const url = `${node.url}/trace?${new URLSearchParams(query)}`;
    this.request = http.get(url, { agent: false, headers }, (response) => {
      this.response = response;
      response.setEncoding("utf8");
      response.on("data", (chunk) => this.#read(chunk));
      response.on("close", () => (this.ended = true));
      response.on("error", () => {});
    });
    this.request.on("error", () => (this.ended = true));
  }

  #unread = "";
  #read(chunk) {
    this.text += chunk;
    const blocks = (this.#unread + chunk).split("\n\n");
    this.#unread = blocks.pop();
    for (const block of blocks) if (block.startsWith("data: ")) this.lines.push(JSON.parse(block.slice("data: ".length)));
  }

  /** Resolves with this once so many nodes follow. */
  async opened(nodes = 1) {
    const opened = await this.line({ type: "opened" });
    assert.ok(opened.nodes <= nodes, `${opened.nodes} nodes`);
    // One that did not answer in time is asked again, every second.
    const following = () => new Set(this.all({ type: "node", status: "following" }).map(({ node }) => node)).size;
    if (opened.nodes < nodes) await until(() => following() >= nodes, () => `${nodes} nodes that follow; got ${JSON.stringify(this.lines)}`);
    return this;
  }

  /** The first line with these values. */
  line = (wanted) => until(() => this.all(wanted)[0], () => `a line with ${JSON.stringify(wanted)}; got ${JSON.stringify(this.lines)}`);
  /** All lines so far with these values. */
  all = (wanted) => this.lines.filter((line) => Object.entries(wanted).every(([key, value]) => JSON.stringify(line[key]) === JSON.stringify(value)));

  close() {
    this.request.destroy();
  }
}
