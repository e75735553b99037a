#!/usr/bin/env bash
# Runs Debian's nginx with site.conf, in front of a real infer ($1, host:port) and a test origin.
set -euo pipefail
cd "$(dirname "$0")"
infer=${1:?expected the address of a running infer, such as 127.0.0.1:8080}
folder=$(mktemp -d)
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
site=$(free_port) origin=$(free_port) unused=$(free_port)
cleanup() {
    for pid in "$folder"/*.pid; do [ -f "$pid" ] && kill "$(cat "$pid")" 2>/dev/null || true; done
    rm -rf "$folder"
}
trap cleanup EXIT

# An origin that returns the body of the request.
cat >"$folder/origin.py" <<'PY'
import http.server, os, sys
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Echo).serve_forever()
PY
python3 "$folder/origin.py" "$origin" & echo $! >"$folder/origin.pid"

start() { # infer's address, fail
    {
        echo "load_module /usr/lib/nginx/modules/ngx_http_js_module.so;"
        echo "pid $folder/nginx.pid; error_log $folder/error.log warn; events {}"
        echo "http { access_log off;"
        for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $folder/$kind;"; done
        sed -e "s|/etc/nginx/infer|$PWD|; s|127.0.0.1:8080|$1|; s|127.0.0.1:3000|127.0.0.1:$origin|" \
            -e "s|127.0.0.1:8000|127.0.0.1:$site|; s|infer_fail closed|infer_fail $2|" site.conf
        echo "}"
    } >"$folder/nginx.conf"
    nginx -c "$folder/nginx.conf" -e "$folder/error.log"
}
stop() {
    nginx -c "$folder/nginx.conf" -e "$folder/error.log" -s stop
    while [ -f "$folder/nginx.pid" ]; do sleep 0.1; done
}
expect() { # status, name of the case, curl's arguments
    local status
    status=$(curl -s -o "$folder/body" -w '%{http_code}' "${@:3}" "http://127.0.0.1:$site/comments")
    [ "$status" = "$1" ] || { echo "nginx: $2: status $status, expected $1" >&2; cat "$folder/error.log" "$folder/body" >&2; exit 1; }
    echo "nginx: $2: $status"
}
clean='Thank you for fixing the article so quickly, it reads much better now.'
insult='You are so dumb and stupid!'

start "$infer" closed
for _ in $(seq 50); do curl -s -o /dev/null "http://127.0.0.1:$origin" && break; sleep 0.1; done
expect 200 'an allowed form' --data-urlencode "comment=$clean"
[[ $(cat "$folder/body") == comment=Thank* ]] || { echo "nginx: the origin got \`$(cat "$folder/body")\`" >&2; exit 1; }
expect 200 'allowed JSON' --json "{\"comment\": \"$clean\"}"
[[ $(cat "$folder/body") == "{\"comment\": \"$clean\"}" ]] || { echo "nginx: the origin got \`$(cat "$folder/body")\`" >&2; exit 1; }
expect 403 'a blocked form' --data-urlencode "comment=$insult"
expect 403 'blocked JSON' --json "{\"comment\": \"$insult\"}"
expect 400 'a form without a comment' --data-urlencode "text=$insult"
expect 400 'two comments' --data-urlencode "comment=$clean" --data-urlencode "comment=$insult"
head -c 300000 /dev/zero | tr '\0' a >"$folder/long"
expect 413 'an oversized comment' --data-binary "@$folder/long"
stop
start "127.0.0.1:$unused" closed
expect 503 'infer is down, closed' --data-urlencode "comment=$clean"
stop
start "127.0.0.1:$unused" open
expect 200 'infer is down, open' --data-urlencode "comment=$clean"
stop
