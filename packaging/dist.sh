#!/usr/bin/env bash
# `make dist`: builds what a release publishes into target/dist, for each architecture: a static binary, an archive, a .deb,
# the packages for npm and PyPI, and the root of the container image; and once: an SBOM and checksums.
#   DIST_TARGETS   the architectures; "x86_64 aarch64"
#   DIST_PROFILE   cargo's profile; "release". "dev" is quick to build, for tests
#   BUILD_COMMIT, SOURCE_DATE_EPOCH   what the packages say of their origin; by default the commit and its time
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
targets=${DIST_TARGETS:-x86_64 aarch64}
profile=${DIST_PROFILE:-release}
dist=$PWD/target/dist
work=$dist/work

fail() { echo "dist: $*" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)
if [ -e .git ] && [ -z "${BUILD_COMMIT:-}" ]; then
  BUILD_COMMIT=$(git log -1 --format='%h %cs' --abbrev=12)
  [ -z "$(git status --porcelain --untracked-files=no)" ] || BUILD_COMMIT+=", modified"
  SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
fi
export BUILD_COMMIT=${BUILD_COMMIT:-}   # empty: build.rs finds it
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)}
native=$(uname -m)
case " $targets " in
  *" $native "*) ;;
  *) fail "DIST_TARGETS must include $native: its binary writes the man page and the completions" ;;
esac

packaging/tools.sh $targets
export PATH="$PWD/packaging/.venv/bin:$PATH"
if [ "$profile" = dev ]; then
  export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_STRIP=debuginfo   # a quarter of the size
fi

rm -rf "$dist"
mkdir -p "$work/share"
for target in $targets; do
  cargo zigbuild --locked --bin roomcast --profile "$profile" --target "$target-unknown-linux-musl"
  built=target/$target-unknown-linux-musl/$([ "$profile" = dev ] && echo debug || echo "$profile")/roomcast
  install -D -m 755 "$built" "$work/$target/roomcast"
done

# The same files for all architectures.
binary=$work/$native/roomcast
share=$work/share
"$binary" man > "$share/roomcast.1"
"$binary" completions bash > "$share/roomcast.bash"
"$binary" completions zsh > "$share/_roomcast"
"$binary" completions fish > "$share/roomcast.fish"
cp LICENSE README.md CHANGELOG.md config.example.toml deploy/systemd/roomcast.service "$share"
# The configuration of the Debian package. Its secrets are made where it is installed.
"$binary" init --dir "$work/init" > /dev/null
sbom=$dist/roomcast-$version.cdx.json
commit=$("$binary" --version | sed 's/.*(\(.*\))/\1/')
python3 packaging/sbom.py "$commit" $targets > "$sbom"
certificates=${CA_CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
[ -s "$certificates" ] || fail "$certificates is missing: install ca-certificates, or set CA_CERTIFICATES"

for target in $targets; do
  case "$target" in
    x86_64) debian=amd64 node=x64 ;;
    aarch64) debian=arm64 node=arm64 ;;
    *) fail "there are no packages for $target, only for x86_64 and aarch64" ;;
  esac
  binary=$work/$target/roomcast

  name=roomcast-$version-linux-$debian
  mkdir "$work/$name"
  cp "$binary" "$share"/* "$work/$name"
  tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c "$name" | gzip -n > "$dist/$name.tar.gz"

  packaging/deb.sh "$version" "$debian" "$binary" "$work/init/roomcast.toml" "$share" "$sbom" "$dist"
  python3 packaging/wheel.py "$version" "$target" "$binary" "$dist"
  node packaging/npm.mjs platform "$version" "$node" "$binary" "$dist"

  install -D -m 755 "$binary" "$dist/image/$debian/roomcast"
  install -D -m 644 "$certificates" "$dist/image/$debian/etc/ssl/certs/ca-certificates.crt"
done
node packaging/npm.mjs main "$version" "$dist"

rm -rf "$work"
(cd "$dist" && find . -maxdepth 1 -type f ! -name SHA256SUMS -printf '%f\n' | LC_ALL=C sort | xargs sha256sum > SHA256SUMS)
ls -l "$dist"
