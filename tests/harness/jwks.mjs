// A JSON Web Key Set over HTTP; the test may change the answer.
import http from "node:http";

/** It serves `keys`, or `body` as raw text, and records `requests`. */
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
