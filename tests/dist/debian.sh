#!/usr/bin/env bash
# Runs a shell script where it can install a package: all that it writes goes to memory, and the machine is not touched.
#   debian.sh EMPTY_DIRECTORY SCRIPT
set -euo pipefail
if [ -z "${IN_COPY:-}" ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n --preserve-env=PATH)
  exec "${root[@]}" env IN_COPY=1 unshare --mount --propagation private "$0" "$@"
fi
copy=$1
mount -t tmpfs tmpfs "$copy"
mkdir "$copy/written" "$copy/work" "$copy/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$copy/written,workdir=$copy/work" "$copy/root"
for system in proc sys dev; do mount --rbind "/$system" "$copy/root/$system"; done
# The directory of a package to install.
mount --rbind "$PWD" "$copy/root/mnt"
exec chroot "$copy/root" sh -eu -c "$2"
