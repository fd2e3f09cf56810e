#!/usr/bin/env bash
# `make image`: builds the container image from target/dist, without a registry, with docker, podman or buildah.
#   packaging/image.sh NAME [OPTION…]      options go to the builder
#   IMAGE_BUILDER   docker, podman or buildah; by default the first that works
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=$1
shift
root=target/dist/image
[ -d "$root" ] || { echo "image: $root is missing; run \`make dist\` first" >&2; exit 1; }
# All of the sources are left out of the build: nothing of them is copied.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
builder=${IMAGE_BUILDER:-}
if [ -z "$builder" ]; then
  if docker info >/dev/null 2>&1; then builder=docker
  elif command -v podman >/dev/null; then builder=podman
  elif command -v buildah >/dev/null; then builder=buildah
  else echo "image: there is no docker engine, podman or buildah" >&2; exit 1
  fi
fi
case "$builder" in
  docker) build=(docker build) ;;
  *) build=("$builder" build --format docker) ;;   # the OCI format has no HEALTHCHECK
esac
tags=(--tag "$name")
# The chart and the manifests name the version.
[[ $name == *:* ]] || tags+=(--tag "$name:$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -1)")
"${build[@]}" --build-context "root=$root" "${tags[@]}" --file Dockerfile "$@" "$empty"
