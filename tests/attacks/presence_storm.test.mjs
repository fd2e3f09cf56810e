// Many users come into one presence room at once, and leave at once: announcements to everybody would be n² deliveries. A
// bystander in another room is measured, so the tests run one after the other.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const USERS = 300;
const LIMIT = 20;
const rooms = [{ match: "user:{user}", join: "auto" }, {
  match: "crowd:<id>",
  join: "allow",
  joined: { event: "joined", args: ["{user}"] },
  left: { event: "left", args: ["{user}"] },
}];
const members = async (node) => (await node.get("/rooms/crowd:1", { authorization: `Bearer ${KEY}` })).json().users;

for (const log of ["memory", "Redis"]) {
  scenario(`${USERS} users at once, with the log in ${log}: announcements are bounded and counted, a bystander does not wait`, async (s) => {
    const redis = log === "Redis" ? { redis: { url: (await s.redis()).url } } : {};
    const node = await s.node({ ...redis, rooms, presence: { grace: "0s", announce_limit: LIMIT } });
    const bystander = await witness(s, node);
    const before = await node.metric('roomcast_deliveries_total{protocol="ws"}');
    const crowd = await Promise.all(Array.from({ length: USERS }, (_, n) => s.ws(node, { token: tokenFor(`c${n}`) }).welcomed()));
    const counted = async () => ({
      deliveries: (await node.metric('roomcast_deliveries_total{protocol="ws"}')) - before,
      silent: await node.metric('roomcast_drops_total{reason="crowd"}'),
    });
    await bystander.during(Promise.all(crowd.map((client) => client.join("crowd:1"))));
    assert.equal((await members(node)).length, USERS);
    const { deliveries, silent } = await counted();
    assert.equal(silent, USERS - LIMIT);
    // A session may come between a change of the store and its announcement.
    assert.ok(deliveries <= LIMIT * USERS, `${deliveries} deliveries`);
    await bystander.during(Promise.all(crowd.map((client) => client.ask({ type: "leave", room: "crowd:1" }))));
    await until(async () => (await members(node)).length === 0, "an empty room");
    await until(async () => (await counted()).silent === 2 * (USERS - LIMIT) - 1, "announcements that are left out");
    const after = await counted();
    assert.ok(after.deliveries <= 2 * LIMIT * USERS, `${after.deliveries} deliveries`);
    bystander.unharmed();
    assert.equal((await node.get("/health")).status, 200);
  });
}
