#!/usr/bin/env bash
# Runs Schemathesis ($1) against the server at INFER_URL with valid and invalid requests. A response
# fails the run if it is a 5xx or differs from the OpenAPI document. Schemathesis runs in an empty
# folder, because it reuses the examples that it saved in earlier runs.
set -euo pipefail

schemathesis=$(realpath "$1")
PYTHONPATH=$(realpath "$(dirname "$0")")
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1 SCHEMATHESIS_HOOKS=hooks
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"$schemathesis" run "$INFER_URL/openapi.json" --header 'Authorization: Bearer schema-test-key' \
    --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,ignored_auth,unsupported_method \
    --phases coverage,fuzzing --max-examples 20 --generation-deterministic --workers 1 --continue-on-failure --no-color
