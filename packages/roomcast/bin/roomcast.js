#!/usr/bin/env node
// Runs the binary, which a package of its own carries for each platform. npm installs only the one that fits.
"use strict";
const { spawn } = require("node:child_process");
const { constants } = require("node:os");

const platform = `${process.platform}-${process.arch}`;
const PLATFORMS = ["linux-x64", "linux-arm64"];

function binary() {
  try {
    return require.resolve(`@roomcast/${platform}/bin/roomcast`);
  } catch {
    const reason = PLATFORMS.includes(platform)
      ? `the package @roomcast/${platform} is missing. Install again, with optional dependencies (without --omit=optional)`
      : `there is no binary for ${platform}, only for ${PLATFORMS.join(" and ")}. Use the container image, or build it with cargo`;
    console.error(`roomcast: ${reason}: https://www.npmjs.com/package/roomcast`);
    process.exit(1);
  }
}

const child = spawn(binary(), process.argv.slice(2), { stdio: "inherit" });
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2"]) {
  // Ctrl+C in a terminal reaches the child by itself.
  process.on(signal, () => (signal === "SIGINT" && process.stdin.isTTY) || child.kill(signal));
}
// npm runs a program in a shell, and a signal to npm ends only that shell: the server would stay, and keep its port.
if (process.env.npm_command) {
  const shell = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(watch);
    child.kill("SIGTERM");
  }, 200);
}
child.on("error", (error) => {
  console.error(`roomcast: cannot run ${child.spawnfile}: ${error.message}`);
  process.exit(1);
});
child.on("exit", (code, signal) => {
  // As a shell reports a process that a signal ended.
  process.exit(signal ? 128 + constants.signals[signal] : code);
});
