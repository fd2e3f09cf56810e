// A page in a real Chromium that runs a block of the documents, and records which of the application's functions it calls.
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { startBrowser } from "../harness/browser.mjs";
import { until } from "../harness/deadline.mjs";
import { tokenFor } from "../harness/token.mjs";
import { ROOT } from "./snippets.mjs";

const CLIENT = path.join(ROOT, "tests/node_modules/socket.io-client/dist/socket.io.esm.min.js");
/** What a React Native app has and a browser lacks; the test makes the app active by itself. */
const REACT_NATIVE = "export const AppState = { addEventListener: (name, listener) => (globalThis.setAppState = listener) };";
const IMPORTS = { "socket.io-client": "/socket.io-client.js", "react-native": "/react-native.js" };

/** Serves the pages of one test file, and has one browser for them. */
export async function startPages() {
  let source = "";
  const files = {
    "/": () => ["text/html", `<!doctype html><script type="importmap">${JSON.stringify({ imports: IMPORTS })}</script>`],
    "/socket.io-client.js": () => ["text/javascript", fs.readFileSync(CLIENT)],
    "/react-native.js": () => ["text/javascript", REACT_NATIVE],
    "/snippet.js": () => ["text/javascript", source],
  };
  const server = http.createServer((request, response) => {
    const [type, body] = files[new URL(request.url, "http://page").pathname]?.() ?? ["text/plain", ""];
    response.writeHead(200, { "content-type": type, "cache-control": "no-store" }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const browser = await startBrowser();
  const origin = `http://127.0.0.1:${server.address().port}`;

  /**
   * Runs `code` as a module, for the user of `token`. `functions` are the names of the application's own functions. Resolves with
   * `called(name)`, which waits for a call and resolves with its arguments, and `lines`, what went to the console.
   */
  async function run(node, code, functions, token = tokenFor("7")) {
    const page = await browser.newPage();
    const lines = [];
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    // A line of a page that is closed meanwhile cannot be read any more.
    page.on("console", (line) => Promise.all(line.args().map((value) => value.jsonValue())).then((values) => lines.push(values), () => {}));
    await page.goto(`${origin}/`);
    await page.evaluate(([token, names]) => {
      globalThis.calls = [];
      globalThis.currentToken = () => token;
      for (const name of names) globalThis[name] = (...args) => void globalThis.calls.push([name, args]);
    }, [token, functions]);
    source = toNode(code, node);
    await page.evaluate(() => import("/snippet.js"));
    const calls = () => page.evaluate(() => globalThis.calls);
    const called = (name) => until(
      async () => (await calls()).find(([called]) => called === name)?.[1],
      () => `a call of ${name}; errors: ${errors}; lines: ${JSON.stringify(lines)}`);
    return { page, called, lines, errors };
  }

  return { origin, run, close: () => Promise.all([browser.close(), new Promise((resolve) => (server.closeAllConnections(), server.close(resolve)))]) };
}

/** The block with the node's addresses in place of those that it shows. */
const toNode = (code, node) =>
  code
    .replaceAll("https://app.example.com", node.url)
    .replaceAll("wss://app.example.com", node.url.replace("http", "ws"))
    .replaceAll("http://localhost:8080", node.url)
    .replaceAll("`/sse?", `\`${node.url}/sse?`);
