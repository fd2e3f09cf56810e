#!/usr/bin/env bash
# Runs roomcast as the manifests, the Compose file and the systemd unit do: as a user without rights, without capabilities,
# without core dumps, and where nothing can be written.
set -euo pipefail
if [ -z "${IN_SANDBOX:-}" ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n --preserve-env=PATH,ROOMCAST_BIN)
  exec "${root[@]}" env IN_SANDBOX=1 unshare --mount --propagation private "$0" "$@"
fi
findmnt -rno TARGET | while read -r target; do
  case "$target" in
    /proc* | /sys* | /dev*) ;;
    *) mount -o remount,bind,ro "$target" ;;
  esac
done
if touch "${TMPDIR:-/tmp}/writable" 2>/dev/null; then echo "the sandbox is writable" >&2; exit 1; fi
mount -t tmpfs -o ro,mode=000 tmpfs /root
binary=$ROOMCAST_BIN
unset ROOMCAST_BIN   # or it counts as a key of the configuration
exec prlimit --core=0 setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs \
  "$binary" "$@"
