// Pages that anybody may ask for again and again.
import { describe } from "node:test";
import assert from "node:assert/strict";
import http from "node:http";
import { scenario } from "../harness/scenario.mjs";
import { witness } from "./witness.mjs";

const IN_FLIGHT = 64;

/** Requests a path again and again over 64 connections, for as long as `lasts` says; resolves with the number of answers. */
async function flood(node, path, lasts) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: IN_FLIGHT });
  const one = () => new Promise((resolve, reject) => {
    http.get(node.url + path, { agent }, (response) => {
      response.resume().on("end", () => resolve(response.statusCode));
    }).on("error", reject);
  });
  let answers = 0;
  const asker = async () => {
    while (lasts()) {
      assert.equal(await one(), 200);
      answers += 1;
    }
  };
  await Promise.all(Array.from({ length: IN_FLIGHT }, asker));
  agent.destroy();
  return answers;
}

describe("probes", { concurrency: 1 }, () => {
  for (const path of ["/metrics", "/socket/ping"]) {
    scenario(`${IN_FLIGHT} requests for ${path} in flight all the time: the bystander does not wait`, async (s) => {
      const one = await s.node();
      const bystander = await witness(s, one);
      const until = Date.now() + 2_000;
      const answers = await bystander.during(flood(one, path, () => Date.now() < until));
      assert.ok(answers >= IN_FLIGHT, `${answers} answers`);
      bystander.unharmed();
    });
  }
});
