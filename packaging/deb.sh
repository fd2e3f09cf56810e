#!/usr/bin/env bash
# Builds the Debian package.
#   packaging/deb.sh VERSION ARCHITECTURE BINARY CONFIGURATION SHARE SBOM OUTPUT_DIRECTORY
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
version=$1 architecture=$2 binary=$3 configuration=$4 share=$5 sbom=$6 output=$7
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

put() { install -D -m "$1" "$2" "$root$3"; }

put 755 "$binary" /usr/bin/roomcast
put 644 "$share/roomcast.service" /usr/lib/systemd/system/roomcast.service
put 644 "$share/roomcast.bash" /usr/share/bash-completion/completions/roomcast
put 644 "$share/_roomcast" /usr/share/zsh/vendor-completions/_roomcast
put 644 "$share/roomcast.fish" /usr/share/fish/vendor_completions.d/roomcast.fish
put 644 "$share/config.example.toml" /usr/share/doc/roomcast/config.example.toml
put 644 "$share/LICENSE" /usr/share/doc/roomcast/copyright
put 644 "$sbom" /usr/share/doc/roomcast/sbom.cdx.json
put 644 "$share/roomcast.1" /usr/share/man/man1/roomcast.1
put 644 "$share/CHANGELOG.md" /usr/share/doc/roomcast/changelog
gzip -9n "$root/usr/share/man/man1/roomcast.1" "$root/usr/share/doc/roomcast/changelog"
put 644 "$configuration" /etc/roomcast/roomcast.toml

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 755 "deb/$script" "$root/DEBIAN/$script"; done
echo /etc/roomcast/roomcast.toml > "$root/DEBIAN/conffiles"
cat > "$root/DEBIAN/control" <<CONTROL
Package: roomcast
Version: $version
Architecture: $architecture
Maintainer: the roomcast authors <roomcast@localhost>
Section: net
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
Recommends: ca-certificates
Suggests: redis-server (>= 5:6.2)
Description: realtime server that sits beside an existing backend
 roomcast keeps the connections of clients (Socket.IO, WebSocket, Server-Sent
 Events) and the rooms they are in, and delivers what a backend publishes over
 HTTP or Redis, in order, including what a client missed.
CONTROL
find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
# xz: tools of older Debian releases read it too.
dpkg-deb --root-owner-group -Zxz -z"${DEB_COMPRESSION:-6}" --build "$root" "$output/roomcast_${version}_$architecture.deb"
