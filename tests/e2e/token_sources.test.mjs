// Where a token may be sent: an empty one counts as missing, and a "Bearer " before the token is ignored.
import assert from "node:assert/strict";
import { Polling } from "../harness/engine.mjs";
import { request } from "../harness/http.mjs";
import { scenario, suite } from "../harness/scenario.mjs";
import { tokenFor } from "../harness/token.mjs";

const token = tokenFor("7");
const BOTH = [["websocket"], ["polling"]];

suite("sources of the token", () => {
  scenario("Socket.IO: with an empty `auth.token`, the token of the header or the query is used", async ({ node, io }) => {
    const one = await node();
    for (const transports of BOTH) {
      for (const empty of ["", "  ", "Bearer ", null, undefined, 7]) {
        await io(one, { auth: { token: empty }, query: { token }, transports }).connected();
        await io(one, { auth: { token: empty }, extraHeaders: { authorization: `Bearer ${token}` }, transports }).connected();
      }
      await io(one, { auth: {}, query: { token }, extraHeaders: { authorization: "Bearer " }, transports }).connected();
    }
    assert.equal((await io(one, { auth: { token: "" } }).refused()).data.code, "token_missing");
  });

  scenario("Socket.IO: `Bearer ` before the token is ignored", async ({ node, io }) => {
    const one = await node();
    for (const transports of BOTH) {
      for (const written of [`Bearer ${token}`, `bearer  ${token}`, ` ${token} `]) {
        await io(one, { auth: { token: written }, transports }).connected();
        await io(one, { query: { token: written }, transports }).connected();
      }
    }
    assert.equal((await io(one, { auth: { token: `Basic ${token}` } }).refused()).data.code, "token_malformed");
  });

  scenario("/ws and /sse: an empty token counts as missing, and `Bearer ` is ignored", async ({ node, ws, sse }) => {
    const one = await node();
    const bearer = encodeURIComponent(`Bearer ${token}`);
    await ws(one, { path: `/ws?token=${bearer}` }).welcomed();
    await ws(one, { path: "/ws?token=", headers: { authorization: `Bearer ${token}` } }).welcomed();
    await ws(one, { token, headers: { authorization: "Bearer " } }).welcomed();
    const first = ws(one, { path: "/ws?token=" });
    first.socket.on("open", () => first.send({ type: "auth", token: `Bearer ${token}` }));
    await first.welcomed();
    const status = async (options) => (await sse(one, { rooms: ["room:a"], ...options }).answered()).status;
    assert.equal(await status({ token: `Bearer ${token}` }), 200);
    assert.equal(await status({ token, headers: { authorization: "Bearer" } }), 200);
    assert.equal((await request(`${one.url}/sse?room=room:a&token=`)).status, 401);
  });

  scenario("half of a surrogate pair in the handshake does not hide the token", async ({ node }) => {
    const one = await node();
    for (const more of ['"\\ud83d":1', '"name":"x\\ud83d"', '"nested":{"\\udc00":["\\ud83d"]}']) {
      const polling = await new Polling(one).open();
      await polling.post(`40{${more},"token":${JSON.stringify(token)}}`);
      assert.match((await polling.get()).text, /^40\{"sid"/, more);
    }
  });
});
