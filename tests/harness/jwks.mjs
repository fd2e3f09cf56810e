// A JSON Web Key Set over HTTP whose answer a test may change.
import http from "node:http";

/** `keys` is what is served, or `body` as raw text; `requests` is what was asked. */
export async function startJwks() {
  const jwks = { keys: [], body: undefined, requests: [] };
  const server = http.createServer((request, response) => {
    jwks.requests.push({ url: request.url, headers: request.headers });
    response.setHeader("content-type", "application/json");
    response.end(jwks.body ?? JSON.stringify({ keys: jwks.keys }));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  jwks.url = `http://127.0.0.1:${server.address().port}/jwks.json`;
  jwks.close = () => (server.closeAllConnections(), server.close());
  return jwks;
}
