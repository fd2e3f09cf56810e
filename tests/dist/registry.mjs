// An npm registry with the packages of target/dist, on a port of this machine.
import crypto from "node:crypto";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { DIST, output } from "./dist.mjs";

async function published(file, url) {
  const description = JSON.parse(await output("tar", ["-xzOf", file, "package/package.json"]));
  const integrity = `sha512-${crypto.createHash("sha512").update(fs.readFileSync(file)).digest("base64")}`;
  const { name, version } = description;
  const dist = { integrity, tarball: `${url}/-/${path.basename(file)}` };
  return { name, "dist-tags": { latest: version }, versions: { [version]: { ...description, dist } } };
}

export async function startRegistry(keep) {
  const files = fs.readdirSync(DIST).filter((name) => name.endsWith(".tgz"));
  const tarballs = files.map((name) => `-/${name}`);
  const packages = new Map();
  const server = http.createServer((request, response) => {
    const name = decodeURIComponent(request.url.slice(1));
    const known = packages.get(name);
    if (tarballs.includes(name)) {
      response.end(fs.readFileSync(path.join(DIST, path.basename(name))));
    } else if (known) {
      response.setHeader("content-type", "application/json").end(JSON.stringify(known));
    } else {
      response.writeHead(404, { "content-type": "application/json" }).end('{"error":"not found"}');
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  keep({ close: () => (server.closeAllConnections(), server.close()) });
  const url = `http://127.0.0.1:${server.address().port}`;
  for (const file of files) {
    const entry = await published(path.join(DIST, file), url);
    packages.set(entry.name, entry);
  }
  return url;
}
