// Packs the packages for npm: `roomcast`, which runs the binary, and one package for each platform, which carries it.
//   node packaging/npm.mjs platform VERSION CPU BINARY OUTPUT_DIRECTORY
//   node packaging/npm.mjs main VERSION OUTPUT_DIRECTORY
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";

const root = path.join(import.meta.dirname, "..");
const main = path.join(root, "packages/roomcast");
const description = JSON.parse(fs.readFileSync(path.join(main, "package.json"), "utf8"));
const [kind, version, ...rest] = process.argv.slice(2);

const pack = (directory, output) =>
  execFileSync("npm", ["pack", "--silent", "--pack-destination", path.resolve(output)], { cwd: directory, stdio: "inherit" });

if (description.version !== version || Object.values(description.optionalDependencies).some((of) => of !== version)) {
  throw new Error(`packages/roomcast/package.json has another version than ${version} of Cargo.toml, or its optionalDependencies do`);
}
if (kind === "main") {
  pack(main, rest[0]);
} else {
  const [cpu, binary, output] = rest;
  const name = `@roomcast/linux-${cpu}`;
  if (!description.optionalDependencies[name]) throw new Error(`packages/roomcast/package.json does not depend on ${name}`);
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "roomcast-npm-"));
  const { license, repository } = description;
  const own = { description: `The binary of roomcast for Linux on ${cpu}; install \`roomcast\``, preferUnplugged: true, files: ["bin"] };
  fs.writeFileSync(path.join(directory, "package.json"), JSON.stringify({ name, version, license, repository, ...own, os: ["linux"], cpu: [cpu] }, null, 2));
  fs.writeFileSync(path.join(directory, "README.md"), `# ${name}\n\nThe binary of roomcast for Linux on ${cpu}. Install \`roomcast\`, which runs it.\n`);
  fs.copyFileSync(path.join(root, "LICENSE"), path.join(directory, "LICENSE"));
  fs.mkdirSync(path.join(directory, "bin"));
  fs.copyFileSync(binary, path.join(directory, "bin/roomcast"));
  pack(directory, output);
  fs.rmSync(directory, { recursive: true });
}
