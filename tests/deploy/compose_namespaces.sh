#!/usr/bin/env bash
# Runs a command where compose.yaml's services find what they would find in containers: their names, free ports, and their
# mounted files. It has a network and a file tree of its own, which end with it; the machine's are not touched.
#   compose_namespaces.sh COMPOSE_DIRECTORY EMPTY_DIRECTORY COMMAND…
set -euo pipefail
if [ -z "${IN_NAMESPACES:-}" ]; then
  root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n --preserve-env=PATH,ROOMCAST_BIN)
  exec "${root[@]}" env IN_NAMESPACES=1 unshare --net --mount --propagation private --pid --fork --kill-child "$0" "$@"
fi
compose=$1 tree=$2
shift 2
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs "$tree"
for entry in /*; do
  target="$tree$entry"
  if [ -L "$entry" ]; then
    cp -P "$entry" "$target"
  elif [ "$entry" = /etc ]; then
    mkdir "$target"
    cp -a /etc/. "$target"
  elif [ -d "$entry" ]; then
    mkdir "$target"
    mount --rbind "$entry" "$target"
  fi
done
printf '127.0.0.1 %s\n' localhost api roomcast redis nginx > "$tree/etc/hosts"
mkdir -p "$tree/app" "$tree/secrets" "$tree/data" "$tree/etc/roomcast"
mount --bind "$compose/api" "$tree/app"
cp "$compose/roomcast.toml" "$tree/etc/roomcast/"
# As in the image of nginx: its own configuration includes conf.d.
rm -rf "$tree/etc/nginx/conf.d"
mkdir -p "$tree/etc/nginx/conf.d"
cp "$compose/nginx.conf" "$tree/etc/nginx/conf.d/default.conf"
cat > "$tree/etc/nginx/nginx.conf" <<'CONF'
pid /data/nginx.pid;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    access_log off;
    include /etc/nginx/conf.d/*.conf;
}
CONF
exec chroot "$tree" "$@"
