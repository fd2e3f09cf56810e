// What `make dist` leaves behind: the files, their checksums, static binaries, the archive, the bill of materials, the commit.
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { DIST, NATIVE, ROOT, VERSION, artifact, distTest, expectedVersion, output, run } from "./dist.mjs";

const NAMES = { amd64: { rust: "x86_64", node: "x64", machine: 62 }, arm64: { rust: "aarch64", node: "arm64", machine: 183 } };
const built = fs.readdirSync(path.join(DIST, "image"));

distTest("each architecture has its files, and SHA256SUMS has all of them", async () => {
  assert.ok(built.includes(NATIVE.debian));
  const files = [`roomcast-${VERSION}.tgz`, `roomcast-${VERSION}.cdx.json`, "SHA256SUMS"];
  for (const architecture of built) {
    const { rust, node } = NAMES[architecture];
    const systems = ["manylinux2014", "manylinux_2_17", "musllinux_1_1"].map((system) => `${system}_${rust}`).join(".");
    files.push(`roomcast-${VERSION}-linux-${architecture}.tar.gz`, `roomcast_${VERSION}_${architecture}.deb`);
    files.push(`roomcast-linux-${node}-${VERSION}.tgz`, `roomcast-${VERSION}-py3-none-${systems}.whl`);
  }
  assert.deepEqual(fs.readdirSync(DIST).sort(), [...files, "image"].sort());
  const checked = await output("sha256sum", ["--check", "--strict", "SHA256SUMS"], { cwd: DIST });
  assert.equal(checked.trim().split("\n").length, files.length - 1);
});

// Offsets of the ELF header and of program headers, as in elf(5).
function elf(file) {
  const bytes = fs.readFileSync(file);
  assert.equal(bytes.toString("latin1", 1, 4), "ELF");
  const [start, size, count] = [Number(bytes.readBigUInt64LE(32)), bytes.readUInt16LE(54), bytes.readUInt16LE(56)];
  const types = Array.from({ length: count }, (_, index) => bytes.readUInt32LE(start + index * size));
  const INTERPRETER = 3;
  return { machine: bytes.readUInt16LE(18), dynamic: types.includes(INTERPRETER) };
}

for (const architecture of built) {
  distTest(`the binary for ${architecture} is static, and says its commit`, async ({ directory }) => {
    const name = `roomcast-${VERSION}-linux-${architecture}`;
    await output("tar", ["-xzf", artifact(`${name}.tar.gz`), "-C", directory]);
    const names = ["CHANGELOG.md", "LICENSE", "README.md", "_roomcast", "config.example.toml", "roomcast", "roomcast.1", "roomcast.bash", "roomcast.fish", "roomcast.service"];
    assert.deepEqual(fs.readdirSync(path.join(directory, name)).sort(), names.sort());
    const binary = path.join(directory, name, "roomcast");
    assert.deepEqual(elf(binary), { machine: NAMES[architecture].machine, dynamic: false });

    const emulator = architecture === NATIVE.debian ? [] : [`qemu-${NAMES[architecture].rust}-static`];
    const [program, ...args] = [...emulator, binary, "--version"];
    assert.equal(await output(program, args, { env: { PATH: process.env.PATH } }), expectedVersion());
  });
}

distTest("the bill of materials is valid CycloneDX, and has what is in the binary and nothing else", async () => {
  const file = artifact(`roomcast-${VERSION}.cdx.json`);
  const validate = `
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(f"{error}"[:2000] if error else 0)`;
  await output(path.join(ROOT, "tests/.venv/bin/python"), ["-c", validate, file]);
  const bill = JSON.parse(fs.readFileSync(file, "utf8"));
  assert.equal(bill.metadata.component.version, VERSION);
  const crates = bill.components.map(({ name }) => name);
  for (const crate of ["tokio", "aws-lc-sys", "mimalloc", "rustls"]) assert.ok(crates.includes(crate), crate);
  for (const crate of ["proptest", "criterion", "cc", "windows-sys"]) assert.ok(!crates.includes(crate), crate);
  assert.ok(bill.components.every(({ licenses, hashes }) => licenses && hashes));
});

distTest("the commit is one of this repository", async () => {
  const [, hash] = /\(([0-9a-f]{12}) \d{4}-\d\d-\d\d(, modified)?\)/.exec(expectedVersion());
  await output("git", ["cat-file", "-e", `${hash}^{commit}`], { cwd: ROOT });
});

distTest("sources without git still know their commit", async ({ directory }) => {
  const archive = path.join(directory, "sources.tar");
  await output("git", ["archive", "--output", archive, "HEAD", "build.rs", "packaging/commit"], { cwd: ROOT });
  await output("tar", ["-xf", archive, "-C", directory]);
  await output("rustc", ["--edition=2024", "-o", "find-commit", "build.rs"], { cwd: directory });
  const { stdout } = await run("./find-commit", [], { cwd: directory, env: { PATH: process.env.PATH } });
  const commit = (await output("git", ["log", "-1", "--format=%h %cs", "--abbrev=12"], { cwd: ROOT })).trim();
  assert.match(stdout, new RegExp(`^cargo::rustc-env=BUILD_COMMIT=${commit}$`, "m"));
});
