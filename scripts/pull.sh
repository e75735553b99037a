#!/usr/bin/env bash
# Downloads a model's file from Python packages. `infer pull` does not read pip's settings, so this
# script passes it the index that pip is configured with, if any.
set -euo pipefail
cd "$(dirname "$0")/.."

configured() {
    python3 -m pip config get "$1" 2>/dev/null || true
}
if [ -z "${INFER_PIP_INDEX_URL:-}" ]; then
    INFER_PIP_INDEX_URL=${PIP_INDEX_URL:-$(configured download.index-url)}
    INFER_PIP_INDEX_URL=${INFER_PIP_INDEX_URL:-$(configured global.index-url)}
    export INFER_PIP_INDEX_URL
fi
exec "${CARGO_TARGET_DIR:-target}/release/infer" pull "$1" --from pip
