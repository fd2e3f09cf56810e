#!/usr/bin/env bash
# Runs the tests with nginx, HAProxy and Caddy in front of the nodes, with a certificate made for this run: the files of this
# folder (or those given as arguments), then the suites of ../e2e whose clients come through a proxy, or by TLS to the node.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The suites of ../e2e that make sense behind a proxy.
SUITES=(socketio ws sse sse_resume upgrade attachments acknowledgements bytes token_sources rate_limits)
# Besides, where the node itself speaks TLS.
BY_TLS=(drain resume unicode no_sticky_sessions)
PROXIES=${PROXIES:-nginx haproxy caddy}

export ROOMCAST_CERTIFICATES NODE_EXTRA_CA_CERTS
ROOMCAST_CERTIFICATES=$(mktemp -d)
trap 'rm -rf "$ROOMCAST_CERTIFICATES"' EXIT
NODE_EXTRA_CA_CERTS=$ROOMCAST_CERTIFICATES/certificate.pem
(
  cd "$ROOMCAST_CERTIFICATES"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 \
    -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out certificate.pem 2>/dev/null
  cat certificate.pem key.pem >both.pem
)

run() { node --test --test-reporter=spec --test-concurrency=3 "$@"; }

if [ $# -gt 0 ]; then run "$@"; exit; fi
run ./*.test.mjs
for proxy in $PROXIES; do
  echo "Suites of tests/e2e behind $proxy"
  (cd ../e2e && ROOMCAST_GATEWAY=$proxy run "${SUITES[@]/%/.test.mjs}")
done
echo "Suites of tests/e2e by TLS to the node itself"
(cd ../e2e && ROOMCAST_TLS=1 run "${SUITES[@]/%/.test.mjs}" "${BY_TLS[@]/%/.test.mjs}")
