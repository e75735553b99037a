#!/usr/bin/env bash
# Ask the server at INFER_URL whatever its document allows, and what it does not: no answer may be a 5xx, or other than the document says.
# $1 is the program; it keeps what it found in a folder of its own, so that every run is the same.
set -euo pipefail

schemathesis=$(realpath "$1")
PYTHONPATH=$(realpath "$(dirname "$0")")
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=hooks
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$schemathesis" run "$INFER_URL/openapi.json" --header 'Authorization: Bearer schema-test-key' \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method \
    --phases coverage,fuzzing --max-examples 20 --generation-deterministic --workers 2 --continue-on-failure --no-color
