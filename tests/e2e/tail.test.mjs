// `roomcast tail ROOM`: the live events of a room with their receivers over all nodes, and payloads only where the configuration allows them.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { KEY, configure, toml } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { eventOf } from "../harness/lines.mjs";
import { BINARY, Daemon, roomcast } from "../harness/node.mjs";
import { command, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { cluster } from "../harness/trace.mjs";

const PAYLOAD = "what is in the event";

function tail(s, node, ...args) {
  const started = new Daemon(["tail", "room:a", ...args, "--url", node.url, "--key", KEY], {}, BINARY);
  // Without a line of which only a part has come.
  started.lines = () => started.stdout.split("\n").slice(0, -1).filter(Boolean);
  started.events = () => started.lines().map((line) => JSON.parse(line)).filter((line) => line.type === "event");
  started.opened = () => until(() => started.output.includes("opened"), () => started.output);
  return s.keep(Object.assign(started, { close: () => started.signal("SIGKILL") }));
}

suite("Tail", () => {
  scenario("each event of the room is shown once, with its receivers on every node", async (s) => {
    const [one, other] = await cluster(s, 2);
    for (const [n, node] of [one, one, other].entries()) {
      await (await s.ws(node, { token: tokenFor(`${n}`) }).welcomed()).join("room:a");
    }
    const [words, json] = [tail(s, one), tail(s, other, "--json")];
    await Promise.all([words.opened(), json.opened()]);
    // A node that is half a second late with its part has a line of its own: then once more, with other events.
    let turn = 0;
    const { name, volatile, offset, news, typing } = await until(async () => {
      turn += 1;
      const [name, volatile] = [`news${turn}`, `typing${turn}`];
      const offset = await published(one, { rooms: ["room:b", "room:a"], event: name, data: PAYLOAD });
      await published(other, { room: "room:b", event: "elsewhere", data: 1 });
      await published(other, { room: "room:a", event: volatile, volatile: true, data: 1 });
      const of = (event) => json.events().filter((line) => line.event === event);
      const inWords = (event) => words.lines().filter((line) => line.includes(` ${event} `));
      await until(() => [name, volatile].every((event) => of(event).length > 0 && inWords(event).length > 0), () => json.output + words.output);
      const isWhole = (event) => of(event)[0].receivers === 3 && / 3 receivers /.test(inWords(event)[0]);
      return [name, volatile].every(isWhole) && { name, volatile, offset, news: of(name)[0], typing: of(volatile)[0] };
    }, "an event with a whole line on both");
    assert.equal(json.events().filter(({ event }) => event === name).length, 1);
    assert.ok(!json.events().some(({ event }) => event === "elsewhere"));
    const bytes = JSON.stringify([PAYLOAD]).length;
    assert.deepEqual([news.event, news.offset, news.bytes, news.receivers, news.rooms], [name, eventOf(offset), bytes, 3, ["room:b", "room:a"]]);
    assert.deepEqual(Object.values(news.nodes).toSorted(), [1, 2]);
    assert.deepEqual([typing.event, typing.offset, typing.volatile, typing.receivers], [volatile, undefined, true, 3]);
    const inWords = (event) => words.lines().find((line) => line.includes(` ${event} `));
    assert.match(inWords(name), new RegExp(`Z ${name} ${bytes} bytes, 3 receivers \\([0-9a-f]{8} [12], [0-9a-f]{8} [12]\\), at ${eventOf(offset)}$`));
    assert.match(inWords(volatile), / 3 bytes, 3 receivers .*, volatile$/);
    assert.ok(!words.output.includes(PAYLOAD) && !json.output.includes(PAYLOAD));
  });

  scenario("an event that nobody received is shown as such", async (s) => {
    const one = await s.node();
    const followed = tail(s, one, "--json");
    await followed.opened();
    await published(one, { room: "room:a", event: "into the void", data: 1 });
    await until(() => followed.events().length === 1, () => followed.output);
    assert.deepEqual([followed.events()[0].event, followed.events()[0].receivers], ["into the void", 0]);
  });

  scenario("payloads are shown only with the option, and only where the configuration allows them", async (s) => {
    const [one, other] = await cluster(s, 2, { trace: { payloads: true } });
    const [shown, hidden] = [tail(s, one, "--json", "--payloads"), tail(s, other, "--json")];
    await Promise.all([shown.opened(), hidden.opened()]);
    await published(other, { room: "room:a", event: "news", data: PAYLOAD });
    await until(() => shown.events().length && hidden.events().length, () => shown.output + hidden.output);
    assert.deepEqual([shown.events()[0].args, hidden.events()[0].args], [JSON.stringify([PAYLOAD]), undefined]);
    const closed = await s.node();
    const { code, output } = await roomcast(["tail", "room:a", "--payloads", "--url", closed.url, "--key", KEY]);
    assert.equal(code, 1);
    assert.match(output, /payloads_disabled.*trace\.payloads/);
  });

  scenario("payloads can be allowed without a restart", async (s) => {
    const one = await s.node();
    const allowed = toml({ listen: `127.0.0.1:${one.port}`, ...configure({ trace: { payloads: true } }) });
    fs.writeFileSync(path.join(one.directory, "roomcast.toml"), allowed);
    const { changed, needs_restart } = (await command(one, "/reload")).json();
    assert.deepEqual([changed.map(({ key }) => key), needs_restart], [["trace.payloads"], []]);
    const shown = tail(s, one, "--json", "--payloads");
    await shown.opened();
    await published(one, { room: "room:a", event: "news", data: PAYLOAD });
    await until(() => shown.events().length, () => shown.output);
    assert.equal(shown.events()[0].args, JSON.stringify([PAYLOAD]));
  });
});
