#!/bin/sh
# Builds the component: build.sh OUT.wasm [VENV]. Installs componentize-py into VENV if it is
# missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?expected a path: build.sh OUT.wasm [VENV]}
venv=${2:-${CARGO_TARGET_DIR:-target}/componentize-py}
[ -x "$venv/bin/componentize-py" ] || { echo 'installing componentize-py'; python3 -m venv "$venv"; "$venv/bin/pip" install --quiet -r "$here/requirements.txt"; }
made=$(mktemp -d)
trap 'rm -r "$made"' EXIT
# componentize-py replaces Python's own WASI imports by stubs inside the component, that is, all
# imports whose names begin with `wasi:`. The imports for models and settings get another prefix of
# the same length meanwhile.
cp -r "$here/../../wit" "$made/wit"
find "$made/wit" -name '*.wit' -exec sed -i 's/\bwasi:/wazi:/g' {} +
"$venv/bin/componentize-py" -d "$made/wit" -w moderator componentize --stub-wasi -p "$here" app -o "$out"
LC_ALL=C sed -i 's/wazi:/wasi:/g' "$out"
echo "$out: $(($(wc -c <"$out") / 1024)) KiB"
