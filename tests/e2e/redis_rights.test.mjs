// A Redis that accepts connections but lacks rights: `check`, `/health` and the commands report it.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { KEY, SECRET } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { roomcast } from "../harness/node.mjs";
import { published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { PATIENT } from "../harness/sessions.mjs";

const documented = fs.readFileSync(path.join(import.meta.dirname, "../../docs/redis.md"), "utf8");
const RIGHTS = /ACL SETUSER roomcast on >PASSWORD (.*)/.exec(documented)[1].split(" ");
const authorization = { authorization: `Bearer ${KEY}` };

/** A user of these rights, and the URL with it. */
async function user(redis, ...more) {
  await redis.cli("ACL", "SETUSER", "roomcast", "reset", "on", ">pass", ...RIGHTS, ...more);
  return `redis://roomcast:pass@127.0.0.1:${redis.port}/0`;
}

const check = (url) => roomcast(["check"], { REDIS_URL: url, JWT_SECRET: SECRET, ROOMCAST_REDIS__TIMEOUT: PATIENT });

const missing = {
  "channels": { rights: ["resetchannels"], says: /publishing on roomcast:\*.*subscribing to roomcast:volatile/s },
  "EVAL": { rights: ["-eval"], says: /scripts \(EVAL\)/ },
  "XADD": { rights: ["-xadd"], says: /adding to streams/ },
  "XREAD": { rights: ["-xread"], says: /reading roomcast:events/ },
  "writing keys": { rights: ["resetkeys", "%R~roomcast:*"], says: /writing roomcast:events/ },
  "keys of the prefix": { rights: ["resetkeys", "~other:*"], says: /reading roomcast:events/ },
};

// One right at a time: what `check` says without it.
const each = ["time", "evalsha", "exists", "get", "set", "del", "unlink", "pexpire", "xrange", "xrevrange", "xtrim", "xinfo|stream", "pubsub|numsub",
  "hset", "hdel", "hget", "hmget", "hgetall", "hkeys", "hlen", "hvals", "hrandfield", "zadd", "zrem", "zrange", "zrangebyscore", "zscore"];

suite("rights in Redis", () => {
  scenario("the documented rights are sufficient", async ({ node, redis }) => {
    const url = await user(await redis());
    const { code, output } = await check(url);
    assert.equal(code, 0, output);
    const one = await node({ redis: { url } });
    await published(one, { room: "room:a", event: "e", data: 1 });
  });

  scenario("check notices each documented right that is missing", async ({ redis }) => {
    const server = await redis();
    for (const right of each) {
      const { code, output } = await check(await user(server, `-${right}`));
      assert.equal(code, 2, `without ${right}: ${output}`);
      assert.match(output.split("does not let a node work")[1], new RegExp(`\\b${right.split("|")[0]}\\b`, "i"), `without ${right}`);
    }
  });

  scenario("check names the rights that a node does without, but worse", async ({ redis }) => {
    const server = await redis();
    for (const right of ["info", "role", "rename", "memory|usage"]) {
      const { code, output } = await check(await user(server, `-${right}`));
      assert.equal(code, 0, output);
      assert.ok(output.includes(`better with the rights +${right} `), `without ${right}: ${output}`);
    }
    assert.doesNotMatch((await check(await user(server))).output, /better with/);
  });

  for (const [name, { rights, says }] of Object.entries(missing)) {
    scenario(`without ${name}: check exits with 2, /health answers 503 with the reason, and the node recovers by itself`, async ({ node, redis }) => {
      const server = await redis();
      const url = await user(server, ...rights);
      const { code, output } = await check(url);
      assert.equal(code, 2, output);
      assert.match(output, says);
      const one = await node({ redis: { url } }, { ready: false });
      const body = await until(async () => {
        const answer = await one.get("/health");
        assert.equal(answer.status, 503, answer.text);
        return answer.json().services.redis.error && answer.json();
      }, "a reason on /health");
      assert.match(body.services.redis.error, says);
      assert.equal(body.status, "degraded");
      assert.equal((await one.get("/health/live")).status, 200);
      await user(server);
      await until(() => one.answers("/health"), "/health answering 200");
      assert.equal((await one.get("/health")).json().services.redis.error, undefined);
    });
  }

  scenario("a right that is removed later is noticed, and rooms are not counted without the other nodes", async ({ node, redis }) => {
    const server = await redis();
    const one = await node({ redis: { url: await user(server), timeout: "2s" } });
    assert.equal((await one.get("/rooms/room:a", authorization)).status, 200);
    await user(server, "-eval");
    const refused = await until(async () => {
      const answer = await one.get("/rooms/room:a", authorization);
      return answer.status === 503 && answer;
    }, "/rooms answering 503");
    assert.equal(refused.json().error.code, "unavailable");
    await until(() => one.answers("/health", 503), "/health answering 503", 40_000);
  });

  scenario("a node of a Redis Cluster without the stream's slot, addressed as a single server, is reported", async ({ node, redis }) => {
    const server = await redis({ cluster: true });
    const { code, output } = await check(server.url);
    assert.equal(code, 2, output);
    assert.match(output, /CLUSTERDOWN|MOVED/);
    const one = await node({ redis: { url: server.url } }, { ready: false });
    await until(async () => /CLUSTERDOWN|MOVED/.test((await one.get("/health")).text), "the reason on /health");
    assert.equal((await one.get("/health")).status, 503);
  });
});
