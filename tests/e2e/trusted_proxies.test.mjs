// http.trusted_proxies: which client a request behind a proxy comes from, and that limits by address are that client's.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { request } from "../harness/http.mjs";
import { startNginx } from "../harness/nginx.mjs";
import { roomcast } from "../harness/node.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const A = "203.0.113.7";
const B = "198.51.100.9";
const TRUSTED = { trusted_proxies: ["127.0.0.1", "10.0.0.0/8", "2001:db8:ff::/48"] };
const token = tokenFor("7");
const refusals = (node, reason) => node.metric(`roomcast_refusals_total{reason="${reason}"}`);
const range = (count) => Array.from({ length: count }, (_, n) => n);

/** A /ws client whose request has these headers: `welcome`, or the status that refused it. */
async function arrives(s, node, headers, localAddress = "127.0.0.1") {
  const client = s.ws(node, { token, headers, localAddress });
  await until(() => client.end ?? client.messages.length, "an answer");
  return client.messages[0]?.type ?? client.end.status;
}

const from = (value) => ({ "x-forwarded-for": value });

suite("trusted_proxies", () => {
  scenario("connections_per_ip counts the client that a trusted proxy names, in either header, and never the proxy", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { connections_per_ip: 3 } });
    const ways = [
      from(`1.2.3.4, ${A}`), // The client wrote the first address.
      from(`1.2.3.4, ${A}:4711, 10.9.9.9`),
      { forwarded: `for=1.2.3.4, for="${A}:4711";proto=https, for=10.0.0.2` },
    ];
    for (const headers of ways) assert.equal(await arrives(s, one, headers), "welcome", JSON.stringify(headers));
    for (const headers of ways) assert.equal(await arrives(s, one, headers), 429, JSON.stringify(headers));
    for (const n of range(5)) assert.equal(await arrives(s, one, from(`198.51.100.${n}`)), "welcome");
    await one.says(`${A} /ws`);
    assert.doesNotMatch(one.output, /127\.0\.0\.1 \/ws/);
  });

  scenario("an IPv6 /64 network is one client", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { connections_per_ip: 2 } });
    for (const address of ["2001:db8:1:2::1", "[2001:db8:1:2::ffff:9]:4711"]) assert.equal(await arrives(s, one, from(address)), "welcome");
    assert.equal(await arrives(s, one, from("2001:db8:1:2:3::3")), 429);
    assert.equal(await arrives(s, one, from("2001:db8:1:3::1")), "welcome");
  });

  scenario("a header of somebody who is not trusted is not believed, nor is one without the setting", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { connections_per_ip: 2 } });
    for (const n of range(2)) assert.equal(await arrives(s, one, from(`${n}.2.3.4`), "127.0.0.2"), "welcome");
    assert.equal(await arrives(s, one, from(A), "127.0.0.2"), 429);
    const other = await s.node({ limits: { connections_per_ip: 2 } });
    for (const n of range(2)) assert.equal(await arrives(s, other, from(`${n}.2.3.4`)), "welcome");
    assert.equal(await arrives(s, other, from(A)), 429);
  });

  scenario("without a header, or with one that cannot be read, the client is the proxy", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { connections_per_ip: 2 } });
    assert.equal(await arrives(s, one, {}), "welcome");
    assert.equal(await arrives(s, one, from("unknown")), "welcome");
    assert.equal(await arrives(s, one, { forwarded: "for=_hidden" }), 429);
    assert.equal(await arrives(s, one, from(A)), "welcome");
  });

  scenario("headers of 8 KB with a thousand entries are read from their end", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { connections_per_ip: 2 } });
    const long = (entry, last) => from(`${entry.repeat(Math.floor(8_000 / entry.length))}${last}`);
    assert.equal(await arrives(s, one, long("1.2.3.4,", A)), "welcome");
    assert.equal(await arrives(s, one, long('",', A)), "welcome");
    assert.equal(await arrives(s, one, long(",", A)), 429);
    // More trusted proxies than a way has: the peer.
    for (const n of range(2)) assert.equal(await arrives(s, one, long("10.0.0.1,", `10.0.0.${n}`)), "welcome");
    assert.equal(await arrives(s, one, {}), 429);
  });

  scenario("a flood through the proxy takes the places of its own address, and of nobody else's", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { unauthenticated: 20 }, socketio: { connect_timeout: "5m" } });
    const quiet = s.ws(one, { headers: from(B) });
    await until(() => quiet.socket.readyState === 1, "the WebSocket of a client that has not sent its token yet");
    const flood = range(100).map(() => s.ws(one, { headers: from(A) }));
    const gone = () => flood.filter((client) => client.end).length;
    await until(() => gone() >= 75, () => `${gone()} of the flood ended`);
    quiet.send({ type: "auth", token });
    await quiet.welcomed();
    assert.ok((await refusals(one, "unauthenticated")) >= 75);
  });

  scenario("clients without a token share what their address may send, each behind the same proxy its own", async (s) => {
    const one = await s.node({ http: TRUSTED, auth: { anonymous: true }, limits: { user_events_per_second: 10, rooms_per_session: 4 } });
    const answers = async (address) => {
      const clients = await Promise.all(range(4).map(() => s.ws(one, { headers: from(address) }).welcomed()));
      for (const client of clients) for (const id of range(60)) client.send({ type: "event", event: "echo", data: id, id: id + 1 });
      const acks = () => clients.flatMap((client) => client.messages.filter(({ type }) => type === "ack"));
      await until(() => acks().length === 240, "all answers");
      return acks().filter(({ data }) => data.error?.code === "rate_limited").length;
    };
    assert.ok((await answers(A)) > 50, "together they are too fast");
    const single = await s.ws(one, { headers: from(B) }).welcomed();
    assert.deepEqual((await single.ask({ type: "event", event: "echo", data: 1 })).data, 1);
  });

  scenario("nginx uses its connections for many clients: each is counted by its own address", async (s) => {
    const one = await s.node({ http: TRUSTED, limits: { connections_per_ip: 2 } });
    const nginx = s.serve(await startNginx(one));
    const lives = async (headers) => assert.equal((await request(`${nginx.url}/health/live`, { headers })).status, 200);
    for (const n of range(20)) await lives(from(`9.9.9.${n}`));
    await Promise.all(range(10).map(() => lives()));
    const spoof = (n) => from(`9.9.9.${n}`);
    for (const address of ["127.0.0.3", "127.0.0.4"]) {
      for (const n of range(2)) assert.equal(await arrives(s, nginx, spoof(n), address), "welcome");
      assert.equal(await arrives(s, nginx, spoof(9), address), 429, "what the client itself writes is not believed");
    }
    const polling = s.io(nginx, { token, transports: ["polling"] });
    await (await polling.connected()).join("room:a");
    const { sessions } = (await one.get("/sessions?user=7", { authorization: `Bearer ${KEY}` })).json();
    const addresses = sessions.map(({ address }) => address).toSorted();
    assert.deepEqual(addresses, ["127.0.0.1", "127.0.0.3", "127.0.0.3", "127.0.0.4", "127.0.0.4"]);
  });

  scenario("mistakes in the setting are all reported", async () => {
    const { code, output } = await roomcast(["check"], { ROOMCAST_HTTP__TRUSTED_PROXIES: "proxy,10.1.0.0/8,10.0.0.0/33", JWT_SECRET: "x".repeat(40) });
    assert.equal(code, 2);
    for (const wrong of ['"proxy"', "10.0.0.0/8", "0 to 32"]) assert.ok(output.includes(wrong), `${wrong} in ${output}`);
  });
});
