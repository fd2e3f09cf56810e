#!/usr/bin/env bash
# Installs what the JavaScript tests need: Redis, nginx, HAProxy, Caddy, libfaketime, Chromium, Prometheus, docker-compose, Podman, Node packages, a
# Python venv, and the cross-compiler of packaging/. What is already installed is left alone; what cannot be installed fails the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export DEBIAN_FRONTEND=noninteractive

fail() { echo "install-tools: $*" >&2; exit 1; }

# Three times: a server of packages that is away for a moment fails no run.
tried() { "$@" || { sleep 5; "$@"; } || { sleep 20; "$@"; }; }

apt_refreshed=
apt_install() {
  command -v apt-get >/dev/null || fail "no apt-get here; install by hand: $*"
  local root=()
  [ "$(id -u)" = 0 ] || root=(sudo -n)
  # A fresh machine has no package lists, an old one stale ones.
  if [ -z "$apt_refreshed" ]; then tried "${root[@]}" apt-get update -q; apt_refreshed=yes; fi
  tried "${root[@]}" apt-get install -y -q --no-install-recommends "$@" </dev/null || fail "apt-get could not install $*"
}

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v redis-cli >/dev/null || missing+=(redis-tools)
[ -x "${CHROMIUM:-/usr/bin/chromium}" ] || missing+=(chromium)
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing+=(nginx)
command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing+=(haproxy)
command -v caddy >/dev/null || missing+=(caddy)
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing+=(prometheus)
command -v docker-compose >/dev/null || missing+=(docker-compose)
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing+=(iproute2)
php -m 2>/dev/null | grep -q pdo_sqlite || missing+=(php-cli php-sqlite3)
command -v openssl >/dev/null || missing+=(openssl)
command -v curl >/dev/null || missing+=(curl)
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing+=(libfaketime)
command -v podman >/dev/null || missing+=(podman)
command -v runc >/dev/null || missing+=(runc)
case "$(uname -m) ${DIST_TARGETS:-}" in
  x86_64*aarch64*) command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static) ;;
  aarch64*x86_64*) command -v qemu-x86_64-static >/dev/null || missing+=(qemu-user-static) ;;
esac
[ -s /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"

command -v node >/dev/null || fail "Node 20 or newer is missing"
[ "$(node -p 'process.versions.node.split(".")[0]')" -ge 20 ] || fail "Node 20 or newer is needed, here is $(node --version)"
for packages in . ../examples/chat ../examples/nextjs ../packages/console ../site; do
  # A link leads to another worktree's packages, and npm ci would empty those.
  if [ -L "$packages/node_modules" ]; then continue; fi
  installed="$packages/node_modules/.package-lock.json"
  if [ ! -e "$installed" ] || [ "$packages/package-lock.json" -nt "$installed" ]; then
    (cd "$packages" && tried npm ci --no-audit --no-fund </dev/null) || fail "npm ci failed in $packages"
  fi
done

if ! cmp -s requirements.txt .venv/requirements.txt; then
  rm -rf .venv
  python3 -m venv .venv || fail "python3 -m venv failed"
  tried .venv/bin/pip install -q --disable-pip-version-check -r requirements.txt </dev/null || fail "pip failed"
  cp requirements.txt .venv/requirements.txt
fi

# What `make test-dist` builds with.
# shellcheck disable=SC2086
../packaging/tools.sh ${DIST_TARGETS:-$(uname -m)} || [ $? = 3 ] || fail "packaging/tools.sh failed"   # 3: `make test-dist` says that it is left out
