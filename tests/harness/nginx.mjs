// nginx in front of a node, with keep-alive connections to it as in docs/deploy.md.
import { spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { until, within } from "./deadline.mjs";
import { request } from "./http.mjs";
import { freePort } from "./port.mjs";

const configuration = ({ directory, port, target, keepalive, buffering }) => `
daemon off;
worker_processes 1;
pid ${directory}/pid;
error_log ${directory}/error.log;
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path ${directory}/body;
  proxy_temp_path ${directory}/proxy;
  fastcgi_temp_path ${directory}/fastcgi;
  uwsgi_temp_path ${directory}/uwsgi;
  scgi_temp_path ${directory}/scgi;
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  upstream roomcast { server 127.0.0.1:${target}; keepalive 64; keepalive_timeout ${keepalive}; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://roomcast;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_buffering off;
      proxy_request_buffering ${buffering};
      client_max_body_size 0;
      proxy_read_timeout 75s;
      proxy_next_upstream off;
    }
  }
}`;

class Nginx {
  constructor(port, directory) {
    Object.assign(this, { port, directory, url: `http://127.0.0.1:${port}`, socketUrl: `ws://127.0.0.1:${port}` });
    this.process = spawn("nginx", ["-c", path.join(directory, "nginx.conf"), "-e", path.join(directory, "error.log")], { stdio: "ignore" });
    this.exited = new Promise((resolve) => this.process.once("close", resolve));
  }

  async close() {
    this.process.kill("SIGTERM");
    await within(this.exited, "nginx ending by SIGTERM");
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

/**
 * nginx in front of a node; `keepalive` is how long it keeps an idle connection to the node, `buffering` whether it reads a
 * request's body before it passes it on.
 */
export async function startNginx(node, { keepalive = "60s", buffering = "on" } = {}) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-nginx-"));
  // Its worker is another user, and keeps bodies here.
  fs.chmodSync(directory, 0o755);
  const port = await freePort();
  fs.writeFileSync(path.join(directory, "nginx.conf"), configuration({ directory, port, target: node.port, keepalive, buffering }));
  const nginx = new Nginx(port, directory);
  await until(async () => (await request(`${nginx.url}/health/live`).catch(() => undefined))?.status === 200, "nginx forwarding requests");
  return nginx;
}
