// Builds the page into src/http/console/page, where the binary takes it from: `npm ci && npm run build`.
// `node build.mjs DIRECTORY` writes elsewhere, which a test compares with what is committed.
import { build } from "esbuild";
import fs from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";

const here = import.meta.dirname;
const out = path.resolve(process.argv[2] ?? path.join(here, "../../src/http/console/page"));

const { outputFiles } = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.jsx" },
  bundle: true,
  minify: true,
  write: false,
  outdir: out,
  format: "esm",
  target: ["chrome111", "firefox115", "safari16.4"],
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/*! Made by packages/console/build.mjs. Contains Preact and its signals, MIT License, (c) 2015-present Jason Miller */" },
});

fs.mkdirSync(out, { recursive: true });
const files = [
  ...outputFiles.map((file) => [path.basename(file.path), Buffer.from(file.contents)]),
  ...["index.html", "icon.svg"].map((name) => [name, fs.readFileSync(path.join(here, "src", name))]),
];
for (const [name, bytes] of files) {
  const gzip = gzipSync(bytes, { level: 9 });
  // The operating system that compressed it, which must not make a difference.
  gzip[9] = 255;
  fs.writeFileSync(path.join(out, name), bytes);
  fs.writeFileSync(path.join(out, `${name}.gz`), gzip);
  console.log(`${name}: ${bytes.length} bytes, ${gzip.length} compressed`);
}
