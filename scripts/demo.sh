#!/usr/bin/env bash
# Starts the server on a free port, sends it one text and one photo, and stops it.
set -euo pipefail
cd "$(dirname "$0")/.."

infer=${CARGO_TARGET_DIR:-target}/release/infer
log=$(mktemp)
env -u INFER_CONFIG "$infer" serve --log info --log-format text --listen 127.0.0.1:0 2>"$log" &
server=$!
trap 'kill "$server" 2>/dev/null || true; rm -f "$log"' EXIT

url=
for _ in $(seq 300); do
    url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$log")
    if [ -n "$url" ]; then break; fi
    kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
done
[ -n "$url" ] || { echo "demo: the server was not ready within 30 s" >&2; cat "$log" >&2; exit 1; }

show() { python3 -m json.tool --no-ensure-ascii 2>/dev/null || cat; }

printf '\n$ curl %s/moderate -d %s\n' "$url" "'{\"input\": \"You are a complete idiot and everyone hates you.\"}'"
curl -fsS "$url/moderate" -H 'content-type: application/json' \
    -d '{"input": "You are a complete idiot and everyone hates you."}' | show

printf '\n$ curl %s/classify?top=3 --data-binary @tests/data/photos/coffee.jpg\n' "$url"
curl -fsS "$url/classify?top=3" -H 'content-type: image/jpeg' --data-binary @tests/data/photos/coffee.jpg | show

kill -TERM "$server"
wait "$server"
trap 'rm -f "$log"' EXIT
printf '\ndemo: both requests succeeded; the server stopped\n'
