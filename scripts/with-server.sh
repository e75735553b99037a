#!/usr/bin/env bash
# Starts the server on a free port with the configuration $CONFIG (default: the built-in one), runs
# the command with INFER_URL in its environment, and stops the server.
set -euo pipefail

infer=${CARGO_TARGET_DIR:-target}/release/infer
log=$(mktemp)
env -u INFER_CONFIG "$infer" --config "${CONFIG:-host/config/src/default.toml}" serve --log info --log-format text --listen 127.0.0.1:0 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -f "$log"' EXIT

url=
for _ in $(seq 300); do
    url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$log")
    if [ -n "$url" ]; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
[ -n "$url" ] || { echo "with-server: the server was not ready within 30 s" >&2; cat "$log" >&2; exit 1; }
INFER_URL=$url "$@"
