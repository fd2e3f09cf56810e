// The files of deploy/ and the programs that check them.
import { execFile } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { parse, parseAllDocuments } from "yaml";

export const ROOT = path.resolve(import.meta.dirname, "../..");
export const DEPLOY = path.join(ROOT, "deploy");
export const read = (...names) => fs.readFileSync(path.join(ROOT, ...names), "utf8");
export const yaml = (...names) => parse(read(...names));
/** All documents of a YAML text, the empty ones left out. */
export const documents = (text) => parseAllDocuments(text).map((document) => document.toJS()).filter(Boolean);

/** Runs a program that ends by itself: `{ code, output }`, both outputs together. */
export function run(program, args, { env, timeout = 180_000 } = {}) {
  return new Promise((resolve) => {
    execFile(program, args, { env: { ...process.env, ...env }, timeout, maxBuffer: 1 << 24 }, (error, stdout, stderr) =>
      resolve({ code: error ? (error.code ?? error.signal) : 0, output: stdout + stderr }));
  });
}

/** Calls `body` with a new directory, and removes it afterwards. */
export async function withDirectory(body, parent = os.tmpdir()) {
  const directory = fs.mkdtempSync(path.join(parent, ".roomcast-deploy-"));
  try {
    return await body(directory);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

/** A duration of the configuration, Compose or systemd ("30s", "2m") in seconds. */
export function seconds(text) {
  const [, number, unit] = /^(\d+)(s|m|h)$/.exec(text) ?? [];
  if (!number) throw new Error(`not a duration: ${text}`);
  return Number(number) * { s: 1, m: 60, h: 3600 }[unit];
}

/** The code blocks of a page in one language. */
export const blocks = (page, language) =>
  [...page.matchAll(new RegExp("^```" + language + "\n(.*?)^```$", "gms"))].map(([, text]) => text);

/** The default of a key of `[shutdown]`, from docs/configuration.md. */
export function shutdownDefault(key) {
  const section = read("docs/configuration.md").split("\n## [shutdown]\n")[1];
  return seconds(new RegExp("^\\| `" + key + "`(?: ↻)? \\| `\"(.*?)\"`", "m").exec(section)[1]);
}
