// Socket.IO's Admin UI beside very many sockets that come and go: a page gets a bounded part, and nobody waits for it.
import assert from "node:assert/strict";
import { KEY } from "../harness/config.mjs";
import { until } from "../harness/deadline.mjs";
import { engineSocket } from "../harness/engine.mjs";
import { scenario } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";
import { witness } from "./witness.mjs";

const SOCKETS = 1_000;
const SHOWN = 400;
const AT_ONCE = 100;
// Beyond this a page gets all sockets again.
const CHANGES_OF_A_LOOK = 200;

async function crowd(s, node) {
  const clients = [];
  while (clients.length < SOCKETS) {
    const some = Array.from({ length: AT_ONCE }, (_, n) => s.ws(node, { token: tokenFor(`u${clients.length + n}`) }));
    clients.push(...(await Promise.all(some.map((client) => client.welcomed()))));
  }
  return clients;
}

scenario("1,000 sockets come, go and come again; pages that guess are refused, and one that does not read is closed", async (s) => {
  const node = await s.node({ console: { admin_ui: true, admin_ui_sockets: SHOWN, sign_ins_per_minute: 5 }, socketio: { ping_interval: "1s", ping_timeout: "4s" } });
  const auth = { username: "admin", password: KEY };
  const connect = (given) => s.io(node, { namespace: "/admin", auth: given, transports: ["websocket"] });
  const bystander = await witness(s, node);
  let clients = await crowd(s, node);
  const page = await connect(auth).connected();
  const shown = () => page.argsOf("all_sockets").at(-1)?.[0].length;
  await until(shown, "sockets");
  assert.equal(shown(), SHOWN);
  const [{ namespaces }] = page.argsOf("server_stats").at(-1);
  assert.deepEqual(namespaces, [{ name: "/", socketsCount: SOCKETS + 1 }], "the count is of all");

  // A page by hand whose socket is not read.
  const deaf = s.keep(await engineSocket(node));
  await deaf.text((text) => text.startsWith("0"));
  deaf.sendText(`40/admin,${JSON.stringify(auth)}`);
  await deaf.text((text) => text.startsWith("40/admin,"));
  deaf.socket.pause();
  // Each command makes the node look again, soon, and each guess costs a comparison.
  let guesses = 0;
  const began = Date.now();
  const attack = async () => {
    for (let n = 0; n < 10; n += 1) {
      const room = `room:${n}`;
      page.socket.emit("join", "/", room, page.argsOf("all_sockets")[0][0][0].id);
      const { message } = await connect({ username: "admin", password: `guess ${n}` }).refused();
      guesses += message === "invalid credentials";
      await until(() => page.argsOf("room_joined").some((args) => args[1] === room), `the page sees ${room}`);
    }
  };
  await bystander.during(attack());
  const most = 5 + Math.floor((5 * (Date.now() - began)) / 60_000);
  assert.ok(guesses >= 5 && guesses <= most && most < 10, `${guesses} compared of 10, ${most} allowed`);
  for (const client of clients) client.close();
  clients = await crowd(s, node);
  await until(() => page.argsOf("all_sockets").length > 1 && shown() === SHOWN, () => `all sockets again; ${shown()}`);
  const changes = page.argsOf("socket_connected").length + page.argsOf("socket_disconnected").length;
  const looks = page.argsOf("server_stats").length;
  // The counts of the newest look come after its changes.
  assert.ok(changes <= CHANGES_OF_A_LOOK * (looks + 1), `${changes} packets in ${looks} looks`);
  assert.equal(page.connects, 1);
  await until(async () => (await node.connections("socketio")) === 2, "the page that does not read is closed");
  bystander.unharmed();
});
