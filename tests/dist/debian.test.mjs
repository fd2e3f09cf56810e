// The Debian package: installed, updated, removed and purged with dpkg, in a copy of the machine's file tree.
import assert from "node:assert/strict";
import path from "node:path";
import { DIST, NATIVE, VERSION, artifact, distTest, expectedVersion, output } from "./dist.mjs";

const PACKAGE = path.basename(artifact(`roomcast_${VERSION}_${NATIVE.debian}.deb`));
// dpkg wants sbin in PATH.
const env = { PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const script = (directory, text) => output(path.join(import.meta.dirname, "debian.sh"), [directory, text], { cwd: DIST, env });

distTest("it brings program, unit, man page, completions, a configuration that is all right, and secrets of its own", async ({ directory }) => {
  const printed = await script(directory, `
    dpkg -i /mnt/${PACKAGE}
    roomcast --version
    stat -c '%n %a %U' /etc/roomcast/.env /etc/roomcast/roomcast.toml
    set -a; . /etc/roomcast/.env; set +a
    roomcast check --config /etc/roomcast/roomcast.toml 2>&1 | tail -1
    systemd-analyze verify roomcast.service
    zcat /usr/share/man/man1/roomcast.1.gz | grep -c 'roomcast'
    bash -c '. /usr/share/bash-completion/completions/roomcast; complete -p roomcast'
    ls /usr/share/zsh/vendor-completions/_roomcast /usr/share/fish/vendor_completions.d/roomcast.fish
    ls /usr/share/doc/roomcast
  `);
  const version = expectedVersion();
  for (const part of [version, "/etc/roomcast/.env 600 root\n", "/etc/roomcast/roomcast.toml 644 root\n", "-F _roomcast roomcast", "sbom.cdx.json"]) {
    assert.ok(printed.includes(part), `${part} in: ${printed}`);
  }
  assert.match(printed, /^roomcast: OK/m);
});

distTest("an update keeps the configuration and the secrets, removing keeps both, purging neither", async ({ directory }) => {
  const printed = await script(directory, `
    dpkg -i /mnt/${PACKAGE}
    echo 'ADDED=by-hand' >> /etc/roomcast/.env
    echo '# by hand' >> /etc/roomcast/roomcast.toml
    before=$(cat /etc/roomcast/.env /etc/roomcast/roomcast.toml | sha256sum)
    dpkg -i /mnt/${PACKAGE}
    [ "$before" = "$(cat /etc/roomcast/.env /etc/roomcast/roomcast.toml | sha256sum)" ] && echo kept by update
    dpkg -r roomcast
    [ "$before" = "$(cat /etc/roomcast/.env /etc/roomcast/roomcast.toml | sha256sum)" ] && echo kept by removal
    [ ! -e /usr/bin/roomcast ] && echo removed
    dpkg -P roomcast
    [ ! -e /etc/roomcast ] && echo purged
  `);
  for (const part of ["kept by update", "kept by removal", "removed\n", "purged"]) assert.ok(printed.includes(part), `${part} in: ${printed}`);
});
