# Runs roomcast and a backend beside each other until Ctrl-C. Sourced by start.sh of an example, which defines
# `backend`, a function that becomes the backend.
set -euo pipefail
: "${PORT:=3000}" "${ROOMCAST_PORT:=8080}"
page=http://localhost:$PORT
examples=$(dirname "${BASH_SOURCE[0]}")

# The three secrets that roomcast and the backend share, made up unless they are given.
for name in JWT_SECRET ROOMCAST_PUBLISH__KEYS ROOMCAST_BACKEND__SECRET; do
  export "$name=${!name:-$(head -c 32 /dev/urandom | base64 | tr -d '=+/\n')}"
done

# ROOMCAST_BIN, or the release binary of the roomcast that the examples are part of.
roomcast=${ROOMCAST_BIN:-}
if [ -z "$roomcast" ]; then
  echo "building roomcast; the first time takes some minutes (ROOMCAST_BIN names a built one)"
  (cd "$examples/.." && cargo build --release --locked)
  roomcast=$examples/../target/release/roomcast
fi

# Starts both, and ends the other when one ends.
beside() {
  local parts=()
  # Each in a process group of its own, which also has the processes that it starts, such as PHP's workers.
  set -m
  trap 'trap - EXIT; kill -- "${parts[@]/#/-}" 2>/dev/null || true; wait || true' EXIT
  trap 'exit 0' INT TERM
  # PORT and the others are no settings of roomcast's, which refuses a ROOMCAST_… that it does not know.
  env -u PORT -u ROOMCAST_PORT -u ROOMCAST_BIN \
    ROOMCAST_LISTEN="127.0.0.1:$ROOMCAST_PORT" ROOMCAST_BACKEND__URL="http://127.0.0.1:$PORT/roomcast" \
    ROOMCAST_CORS__ORIGINS="$page,http://127.0.0.1:$PORT" "$roomcast" serve --config "$1" &
  parts+=($!)
  export ROOMCAST_URL="http://127.0.0.1:$ROOMCAST_PORT" ROOMCAST_PUBLIC_URL="http://localhost:$ROOMCAST_PORT" PORT
  backend &
  parts+=($!)
  for url in "$ROOMCAST_URL/health" "http://127.0.0.1:$PORT/"; do
    until curl -fs -o /dev/null "$url"; do kill -0 "${parts[@]}" || exit 1; sleep 0.1; done
  done
  printf '\n  Chat:  %s   (open it in two tabs; Ctrl-C ends it)\n\n' "$page"
  wait -n || true
  exit 1
}
