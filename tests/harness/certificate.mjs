// Certificates of 127.0.0.1 and localhost, made by openssl for the run of a test.
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const KEYS = { ec: ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"], rsa: ["rsa:2048"] };

const openssl = (...args) => execFileSync("openssl", args, { stdio: "ignore" });

/** A self-signed certificate and its key in files of their own: `{ cert_file, key_file, pem }`. Of `days: -1` the time is over. */
export function makeCertificate({ days = 2, key = "ec" } = {}) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-tls-"));
  process.once("exit", () => fs.rmSync(directory, { recursive: true, force: true }));
  const [cert_file, key_file] = ["certificate.pem", "key.pem"].map((name) => path.join(directory, name));
  const names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,IP:::1,DNS:localhost"];
  const request = path.join(directory, "request.pem");
  openssl("req", "-newkey", ...KEYS[key], "-nodes", ...names, "-keyout", key_file, "-out", request);
  // `req -x509` makes none that has expired.
  openssl("x509", "-req", "-in", request, "-signkey", key_file, "-copy_extensions", "copy", "-days", `${days}`, "-out", cert_file);
  return { cert_file, key_file, pem: fs.readFileSync(cert_file, "utf8") };
}
