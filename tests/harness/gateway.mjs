// nginx, HAProxy or Caddy in front of nodes, configured as docs/deploy.md says, with TLS and HTTP/2.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { until, within } from "./deadline.mjs";
import { request } from "./http.mjs";
import { freePort } from "./port.mjs";

const PAGE = new URL("../../docs/deploy.md", import.meta.url);
// Made by tests/proxies/run.sh, which also tells Node to trust it.
const CERTIFICATES = process.env.ROOMCAST_CERTIFICATES;

/** The page's example in this language. */
function snippet(language) {
  const [, text] = new RegExp("^```" + language + "\n(.*?)^```$", "ms").exec(fs.readFileSync(PAGE, "utf8")) ?? [];
  if (!text) throw new Error(`docs/deploy.md has no example of ${language}`);
  return text;
}

/** Replaces what must be in the page's example, or the page and this file have parted. */
function replaced(text, changes) {
  for (const [from, to] of changes) {
    if (!text.includes(from)) throw new Error(`the example of docs/deploy.md no longer has: ${from}`);
    text = text.replace(from, () => to);
  }
  return text;
}

const address = (node) => `127.0.0.1:${node.port}`;

// In place of the API, the proxies lead to the nodes' other paths, for publishers.
const KINDS = {
  nginx: {
    configuration: ({ directory, port, nodes }) => `
daemon off;
worker_processes 1;
pid ${directory}/pid;
events { worker_connections 4096; }
http {
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${directory}/${name};`).join(" ")}
  ssl_certificate ${CERTIFICATES}/certificate.pem;
  ssl_certificate_key ${CERTIFICATES}/key.pem;
  access_log off;
${replaced(snippet("nginx"), [
    ["listen 80;", `listen 127.0.0.1:${port} ssl http2;`],
    ["server roomcast:8080;", nodes.map((node) => `server ${address(node)};`).join(" ")],
    ["proxy_pass http://api:3000;", 'proxy_pass http://roomcast; proxy_http_version 1.1; proxy_set_header Connection ""; client_max_body_size 0;'],
  ])}
}`,
    command: (file) => ["nginx", "-c", file, "-e", "stderr"],
  },
  haproxy: {
    configuration: ({ port, nodes }) =>
      replaced(snippet("haproxy"), [
        // The memory for all connections is taken at the start.
        ["maxconn 100000", "maxconn 2000"],
        ["bind :443 ssl crt /etc/haproxy/app.pem", `bind 127.0.0.1:${port} ssl crt ${CERTIFICATES}/both.pem`],
        ["server roomcast1 roomcast:8080", nodes.map((node, index) => `server roomcast${index} ${address(node)}`).join("\n    ")],
        ["default_backend api", "default_backend roomcast"],
        ["api:3000", "127.0.0.1:1"],
      ]),
    command: (file) => ["haproxy", "-db", "-f", file],
  },
  caddy: {
    configuration: ({ port, nodes }) =>
      "{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n" +
      replaced(snippet("caddyfile"), [
        ["app.example.com {", `https://127.0.0.1:${port} {\n\tbind 127.0.0.1\n\ttls ${CERTIFICATES}/certificate.pem ${CERTIFICATES}/key.pem`],
        ["roomcast:8080", nodes.map(address).join(" ")],
        ["@realtime path /socket.io/* /ws /sse", "@realtime path *"],
        ["api:3000", "127.0.0.1:1"],
      ]),
    command: (file) => ["caddy", "run", "--adapter", "caddyfile", "--config", file],
  },
};

/** The names of all. */
export const GATEWAYS = Object.keys(KINDS);

class Gateway {
  constructor(kind, port, directory) {
    Object.assign(this, { kind, port, directory, url: `https://127.0.0.1:${port}`, socketUrl: `wss://127.0.0.1:${port}` });
    this.output = "";
  }

  /** Starts it (again), and waits until it forwards requests. */
  async start() {
    const [program, ...args] = KINDS[this.kind].command(path.join(this.directory, "configuration"));
    const env = { PATH: `${process.env.PATH}:/usr/sbin`, HOME: this.directory, XDG_DATA_HOME: this.directory, XDG_CONFIG_HOME: this.directory };
    this.process = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [this.process.stdout, this.process.stderr]) stream.on("data", (text) => (this.output += text));
    this.exited = new Promise((resolve) => {
      this.process.once("error", (error) => ((this.output += error), resolve()));
      this.process.once("close", resolve);
    });
    // Any answer will do: the node may not be ready.
    const answers = async () => (await request(`${this.url}/health/live`).catch(() => undefined))?.status;
    await until(answers, () => `${this.kind} answering; ${this.output}`, 30_000);
    return this;
  }

  /** Ends it at once, with all its connections. */
  async stop() {
    // nginx's master would leave its workers behind after SIGKILL; SIGTERM is its fast shutdown, and HAProxy's hard stop.
    this.process.kill(this.kind === "caddy" ? "SIGKILL" : "SIGTERM");
    await within(this.exited, `${this.kind} ending`);
  }

  async close() {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.stop();
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A started proxy of this kind in front of the nodes, without sticky sessions. */
export async function startGateway(kind, nodes) {
  if (!CERTIFICATES) throw new Error("ROOMCAST_CERTIFICATES is not set: start these tests with tests/proxies/run.sh");
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), `roomcast-${kind}-`));
  // nginx's worker is another user, and keeps bodies here.
  fs.chmodSync(directory, 0o755);
  const port = await freePort();
  fs.writeFileSync(path.join(directory, "configuration"), KINDS[kind].configuration({ directory, port, nodes }));
  return new Gateway(kind, port, directory).start();
}
