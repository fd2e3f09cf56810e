#!/usr/bin/env bash
# Installs what `make dist` needs besides Rust, Node and dpkg: zig and cargo-zigbuild from PyPI, Rust's libraries for static binaries.
#   packaging/tools.sh ARCHITECTURE…      x86_64, aarch64
# Exit code 3: only Rust's libraries are missing, and their server cannot be reached from here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() { echo "packaging/tools.sh: $*" >&2; exit 1; }

# Three times: a server of packages that is away for a moment fails no build.
tried() { "$@" || { sleep 5; "$@"; } || { sleep 20; "$@"; }; }

if ! cmp -s requirements.txt .venv/requirements.txt; then
  rm -rf .venv
  python3 -m venv .venv || fail "python3 -m venv failed"
  tried .venv/bin/pip install -q --disable-pip-version-check -r requirements.txt </dev/null || fail "pip failed"
  cp requirements.txt .venv/requirements.txt
fi
libraries="$(rustc --print sysroot)/lib/rustlib"
for architecture in "$@"; do
  target="$architecture-unknown-linux-musl"
  if [ -d "$libraries/$target" ]; then continue; fi
  command -v rustup >/dev/null || fail "Rust's library for $target is missing, and rustup, which would install it"
  tried rustup target add "$target" </dev/null || { echo "packaging/tools.sh: rustup could not install $target" >&2; exit 3; }
done
