// SIGTERM and SIGINT: /health turns 503, then every client is closed to reconnect elsewhere, then the node exits with 0.
import assert from "node:assert/strict";
import { until, within } from "../harness/deadline.mjs";
import { publish, published } from "../harness/publish.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

suite("drain", () => {
  for (const signal of ["SIGTERM", "SIGINT"]) {
    scenario(`${signal}: /health answers draining, clients reconnect to a second node, and the exit code is 0`, async ({ redis, node, proxy, io, ws, sse }) => {
      const { url } = await redis();
      const shutdown = { pause: "4s", drain: "300ms", timeout: "15s" };
      const [first, second] = await Promise.all([1, 2].map(() => node({ redis: { url }, shutdown })));
      const balancer = await proxy(first);
      const clients = await Promise.all(
        [["websocket"], ["polling"], ["polling", "websocket"]].map((transports) => io(balancer, { token: tokenFor("7"), transports }).connected()),
      );
      const plain = await ws(balancer, { token: tokenFor("7") }).welcomed();
      const stream = await sse(balancer, { token: tokenFor("7"), rooms: ["room:a"] }).answered();
      balancer.target = second;
      first.stopping = true;
      first.signal(signal);
      const draining = await until(() => first.answers("/health", 503), "503 while draining");
      assert.deepEqual([draining.json().status, draining.json().services.socket.status], ["draining", "draining"]);
      assert.equal((await first.get("/health/live")).status, 200, "still live");
      for (const client of clients) assert.match(await client.disconnected(), /^transport (close|error)$/, "never io server disconnect");
      assert.equal((await plain.ended()).code, 1001);
      const closing = plain.messages.find(({ type }) => type === "closing");
      assert.ok(closing?.reason && closing.retry_after_ms >= 0, JSON.stringify(closing));
      await until(() => stream.ended, "the stream's end");
      const exit = await within(first.exited, "the end of the node");
      assert.deepEqual([exit.code, exit.signal], [0, null]);
      first.assertNoPanic();
      await until(() => clients.every((client) => client.connects === 2 && client.socket.connected), "every client connected again");
      await published(second, { room: "user:7", event: "welcome back", data: 1 });
      await Promise.all(clients.map((client) => client.event("welcome back")));
    });
  }

  scenario("an event answered 200 before the node closes its clients is delivered; later publishes are answered 503", async ({ node, ws }) => {
    const one = await node({ shutdown: { pause: "1s", drain: "200ms", timeout: "15s" } });
    const client = await ws(one, { token: tokenFor("7") }).welcomed();
    const accepted = [];
    let closed;
    client.socket.on("message", (text) => `${text}`.includes('"closing"') && (closed ??= performance.now()));
    const publisher = (async () => {
      for (let n = 0; ; n += 1) {
        const answer = await publish(one, { room: "user:7", event: "n", data: n }).catch(() => undefined);
        if (!answer) return;
        assert.ok(answer.status === 200 || answer.status === 503, answer.text);
        if (answer.status === 200) accepted.push({ n, at: performance.now() });
      }
    })();
    await until(() => accepted.length > 20, "20 events accepted");
    one.stopping = true;
    one.signal("SIGTERM");
    await publisher;
    assert.equal((await one.exited).code, 0);
    await client.ended();
    const got = client.eventsOf("n").map(({ data }) => data);
    // Threads of the node may be on their way with a few while another one closes the client.
    const due = accepted.filter(({ at }) => at < closed - 100).map(({ n }) => n);
    assert.ok(due.length > 20, `${due.length} of ${accepted.length}`);
    assert.deepEqual(got.slice(0, due.length), due);
  });

  scenario("a client that reads nothing does not delay the exit beyond shutdown.timeout", async ({ node, ws }) => {
    const one = await node({ shutdown: { pause: "0s", drain: "300ms", timeout: "2s" } });
    const stuck = await ws(one, { token: tokenFor("7") }).welcomed();
    stuck.socket.pause();
    // It would wait for 45 s until the client has not answered a ping.
    const exit = await one.stop("SIGTERM", 20_000);
    assert.equal(exit.code, 0);
  });

  scenario("a node that is stopped while Redis hangs exits with 0", async ({ redis, node }) => {
    const store = await redis();
    const one = await node({ redis: { url: store.url, timeout: "300ms" } });
    store.signal("SIGSTOP");
    await until(() => one.answers("/health", 503), "/health answering 503");
    assert.equal((await one.stop()).code, 0);
  });
});
