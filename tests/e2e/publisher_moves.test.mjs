// Connections of publishers that go on on another shard's thread: each request is answered once and in order, and the connection is
// as it was.
import assert from "node:assert/strict";
import os from "node:os";
import { makeCertificate } from "../harness/certificate.mjs";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { eventOf } from "../harness/lines.mjs";
import { chance } from "../harness/random.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

/** So many connections that the kernel gives some to each thread. */
const CONNECTIONS = 32;
/** Requests that are on their way on each at once. */
const DEPTH = 3;
/** A publisher moves after some requests. */
const AT_LEAST = 100;

const pieces = chance("pieces");

const rules = { rooms: [{ match: "room:<name>", join: "allow" }], limits: { outbox_bytes: "50MB" } };
const moved = (node) => node.metric("roomcast_publishers_moved_total");

function request(room, number) {
  const body = JSON.stringify({ room, event: "count", data: number });
  return `POST /publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${KEY}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
}

/** Publishes 0, 1, 2, … on one connection until it is stopped. `cuts`: in pieces that end somewhere within a request. */
class Publisher {
  offsets = [];
  sent = 0;
  #unsent = "";

  constructor(connection, room, cuts = false) {
    Object.assign(this, { connection, room, cuts });
    connection.socket.on("data", this.#read);
    this.#write();
  }

  #write() {
    while (!this.isStopped && this.sent < this.offsets.length + DEPTH) this.#unsent += request(this.room, this.sent++);
    const anywhere = () => pieces.below(this.#unsent.length);
    const ends = this.cuts ? [anywhere(), anywhere()].sort((one, other) => one - other) : [];
    let start = 0;
    for (const end of [...ends, this.#unsent.length]) {
      if (end > start) this.connection.write(this.#unsent.slice(start, end));
      start = end;
    }
    this.#unsent = "";
  }

  #read = () => {
    const text = this.connection.received.toString("latin1");
    const answers = [...text.matchAll(/HTTP\/1\.1 (\d+) .*?\r\n\r\n(\{.*?\})(?=HTTP|$)/gs)];
    if (answers.length === 0) return;
    for (const [, status, body] of answers) {
      assert.equal(status, "200", body);
      this.offsets.push(JSON.parse(body).offset);
    }
    this.connection.received = Buffer.alloc(0);
    this.#write();
  };

  async stop() {
    this.isStopped = true;
    await until(() => this.offsets.length === this.sent, () => `${this.sent} answers; got ${this.offsets.length}`);
    this.connection.socket.off("data", this.#read);
  }
}

async function publishAndMove({ ws, raw }, one, cuts = false) {
  const rooms = Array.from({ length: CONNECTIONS }, (_, n) => `room:${n}`);
  const client = await ws(one, { token: tokenFor("7", { rooms }) }).welcomed();
  const publishers = rooms.map((room) => new Publisher(raw(one), room, cuts));
  const hasShards = os.availableParallelism() > 1;
  await until(async () => publishers.every(({ offsets }) => offsets.length >= AT_LEAST) && (!hasShards || (await moved(one)) > 0), "moves", 60_000);
  await Promise.all(publishers.map((publisher) => publisher.stop()));
  const got = (room) => client.messages.filter((message) => message.type === "event" && message.room === room);
  for (const { room, sent, offsets } of publishers) {
    await until(() => got(room).length >= sent, () => `${sent} events in ${room}; got ${got(room).length}`);
    assert.deepEqual(got(room).map(({ data }) => data), [...Array(sent).keys()], "once, and in order");
    assert.deepEqual(got(room).map(({ offset }) => eventOf(offset)), offsets.map(eventOf), "at the offsets that the publisher got");
  }
  return publishers.map(({ connection }) => connection);
}

suite("publishers that move to another shard", () => {
  scenario("all that they send is published once and in order", async (test) => {
    const one = await test.node(rules);
    const connections = await publishAndMove(test, one);
    // They are as they were: hyper takes what is not plain.
    for (const connection of connections) connection.write("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    for (const connection of connections) assert.match(await connection.head(), /^HTTP\/1\.1 200 /);
  });

  scenario("by TLS, and with Redis", async (test) => {
    const store = await test.redis();
    const tls = makeCertificate();
    const one = await test.node({ ...rules, tls, redis: { url: store.url } });
    await publishAndMove(test, one);
  });

  scenario("in pieces of requests, by TLS", async (test) => {
    const tls = makeCertificate();
    const one = await test.node({ ...rules, tls });
    await publishAndMove(test, one, true);
  });

  scenario("a connection that has moved ends when it is idle for too long", async (test) => {
    const one = await test.node({ ...rules, http: { idle_timeout: "5s" } });
    const connections = await publishAndMove(test, one);
    for (const connection of connections) assert.equal(await connection.untilClosed(), "");
  });
});
