// Entries of the stream that nobody on a node wants are not decoded there. What is wrong with them is found all the same: a node
// counts alike, whoever is connected to it.
import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { until } from "../harness/deadline.mjs";
import { published } from "../harness/publish.mjs";
import { chance } from "../harness/random.mjs";
import { RedisWriter } from "../harness/redis_writer.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const SEED = Number(process.env.ENTRY_SEED ?? 1);
const ENTRIES = Number(process.env.ENTRIES ?? 400);
const PARTITIONS = 4;

const { below, pick } = chance("entries", SEED);
const oneIn = (n) => below(n) === 0;

const ROOMS = Array.from({ length: 9 }, (_, n) => `room:${n}`);
const LONG = "x".repeat(201);
const DATA = ["1", '"x"', '{"a":[1,2]}', "null", "[1]", "{", '{"$binary":"AAEC"}', '{"$binary":"?"}', "", "NaN", "01", '"\\ud83d"', '"\u0001"', "[".repeat(200) + "]".repeat(200), `"${"y".repeat(2_500)}"`, "true x", " 1 ", "1e999", "'a'", "[1,]"];
const ARGS = ["[]", "[1,2]", "null", "{}", "[", "1", '[{"$binary":"AA=="}]', '[{"$binary":"!!"}]', "[1,]", "[NaN]", ""];
const LISTS = ['["room:1","room:2"]', '["room:1"]', "[]", "null", "[1]", '"room:1"', '["room:1",""]', "{}", '["a\\u0000"]', '["room:1","room:1"]', '["room:\\u0031"]', JSON.stringify(Array(101).fill("room:1")), '["room:1"', "", "x"];
const EVENTS = ["e", "e", "e", "message", "", "connect", LONG, "a\u0001b", "ü"];

/** The fields of an entry, most of them good. */
function entry() {
  const fields = [];
  if (!oneIn(20)) fields.push("room", oneIn(5) ? pick(["", LONG, "a\nb", "ü", "*"]) : pick(ROOMS));
  if (oneIn(8)) fields.push("rooms", pick(LISTS));
  if (oneIn(10)) fields.push("except", pick(LISTS));
  if (!oneIn(25)) fields.push("event", oneIn(3) ? pick(EVENTS) : "e");
  if (!oneIn(3)) fields.push("data", oneIn(3) ? pick(DATA) : "1");
  if (oneIn(8)) fields.push("args", pick(ARGS));
  if (oneIn(8)) fields.push("namespace", pick(["/", "/chat", "chat", "", `/${LONG}`, "/other"]));
  if (oneIn(8)) fields.push("volatile", pick(["1", "true", "false", "0", "", "null", "yes"]));
  if (oneIn(8)) fields.push("id", pick(["i1", "", LONG, `i${below(1e6)}`]));
  if (oneIn(15)) fields.push(pick(["foo", "Room", "source", "traceparent", "type", "room"]), pick(["1", "room:1", '{"x":1}', "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]));
  return fields.length > 0 ? fields : ["event", "e"];
}

async function counters(node) {
  const { text } = await node.get("/metrics");
  const names = /^roomcast_(drops_total\{reason="malformed"|events_total\{source="stream"|events_refused_total\{reason="[a-z_]+",source="stream")/;
  return text.split("\n").filter((line) => names.test(line) && !line.endsWith(" 0")).join("\n");
}

const lineOf = (room) => (crc32(room) % PARTITIONS) + 1;
const streamOf = (line) => `roomcast:events:{${line}}`;

// Made before any test begins, so that they are the same in every run.
const entries = (streams) => Array.from({ length: ENTRIES }, () => [pick(streams), entry()]);
const ON_ONE_LINE = entries(["roomcast:events"]);
const ON_ALL_LINES = entries(["roomcast:events", ...[1, 2, 3, 4].map(streamOf)]);

/** Adds the entries to two logs, and compares what a node with clients and one without have counted. */
async function compare({ node, redis, ws, keep }, partitions, all) {
  // Of nodes of one cluster the first that finds an entry malformed counts it.
  const stores = [await redis(), await redis()];
  const rest = { publish: { max_event: "2kB" }, socketio: { namespaces: ["/", "/chat"] } };
  const nodes = await Promise.all(stores.map(({ url }) => node({ redis: { url, partitions }, ...rest })));
  await ws(nodes[0], { token: tokenFor("7", { rooms: ROOMS }) }).welcomed();
  for (const store of stores) {
    const writer = keep(await RedisWriter.connect(store));
    await Promise.all(all.map(([stream, fields]) => writer.send("XADD", stream, "*", fields)));
  }
  let counted;
  const areEqual = async () => {
    counted = await Promise.all(nodes.map(counters));
    const sums = [...counted[0].matchAll(/(?:drops_total\{reason="malformed"\}|events_total\{source="stream"\}) (\d+)/g)];
    // A repeat of an id is neither accepted nor malformed.
    const repeats = all.filter(([, fields]) => fields.includes("i1")).length;
    return counted[0] === counted[1] && sums.reduce((sum, [, count]) => sum + Number(count), 0) >= all.length - repeats;
  };
  await until(areEqual, () => `ENTRY_SEED=${SEED}\n${all.map((one) => JSON.stringify(one).slice(0, 200)).join("\n")}\n${counted.join("\n\n")}`);
}

suite("entries that nobody wants", () => {
  scenario("are checked like others", (test) => compare(test, 1, ON_ONE_LINE));

  scenario("are checked like others on every line", (test) => compare(test, PARTITIONS, ON_ALL_LINES));

  scenario("of rooms of another line are dead letters, and not read when a client comes back", async ({ node, redis, ws }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url, partitions: PARTITIONS } });
    const [room] = ROOMS;
    const other = ROOMS.find((name) => lineOf(name) !== lineOf(room));
    const since = await published(one, { room, event: "first" });
    const stream = streamOf(lineOf(room));
    await store.cli("XADD", stream, "*", "room", other, "event", "astray");
    await store.cli("XADD", stream, "*", "rooms", JSON.stringify([room, other]), "event", "astray");
    await published(one, { room, event: "last" });
    await one.metricIs('roomcast_drops_total{reason="malformed"}', 2);
    assert.equal(await one.metric('roomcast_events_total{source="stream"}'), 0);
    await until(async () => (await store.cli("XLEN", "roomcast:dead")).trim() === "2", "the dead letters");
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    client.send({ type: "join", room, since });
    await client.event("last");
    assert.equal(client.eventsOf("astray").length, 0);
  });
});
