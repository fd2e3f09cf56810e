#!/usr/bin/env bash
# Runs PHP's own server and roomcast beside each other until Ctrl-C.
cd "$(dirname "${BASH_SOURCE[0]}")"
. ../beside.sh

# More than one worker: roomcast asks while other requests are served.
backend() { exec env PHP_CLI_SERVER_WORKERS=4 php -S "127.0.0.1:$PORT" -t public public/index.php; }
beside roomcast.toml
