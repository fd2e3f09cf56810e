// Pages of a real browser, on their own origin, that load the stock client with a script tag.
import fs from "node:fs";
import http from "node:http";
import { startBrowser } from "./browser.mjs";

/** The bundle that a page loads with a script tag. */
const CLIENT_BUNDLE = new URL("./dist/socket.io.min.js", import.meta.resolve("socket.io-client/package.json"));
const PAGE = '<!doctype html><title>frontend</title><script src="/socket.io.min.js"></script>';

class Frontend {
  constructor(server, browser) {
    Object.assign(this, { server, browser });
  }

  get origin() {
    return `http://localhost:${this.server.address().port}`;
  }

  /** A page where `io` is the stock client, of this origin or, with `foreign`, of another one. */
  async page({ foreign = false } = {}) {
    const page = await this.browser.newPage();
    await page.goto(foreign ? this.origin.replace("localhost", "127.0.0.1") : this.origin);
    return page;
  }

  async close() {
    await this.browser.close().catch(() => {});
    this.server.closeAllConnections();
    this.server.close();
  }
}

export async function startFrontend() {
  const bundle = fs.readFileSync(CLIENT_BUNDLE);
  const server = http.createServer(({ url }, response) => {
    const [type, body] = url === "/socket.io.min.js" ? ["text/javascript", bundle] : ["text/html", PAGE];
    response.writeHead(200, { "content-type": type }).end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return new Frontend(server, await startBrowser());
}
