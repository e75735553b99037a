#!/bin/sh
# Runs fuzz targets one after another: scripts/fuzz.sh SECONDS TARGET…
#
# Failing inputs are written to fuzz/artifacts. New inputs are kept in fuzz/corpus, beside the seeds
# of the repository.
set -eu
cd "$(dirname "$0")/.."
seconds=$1
shift
INFER_GUESTS=$(cd "${CARGO_TARGET_DIR:-target}/guests" && pwd)
export INFER_GUESTS
unset CARGO_TARGET_DIR
for target in "$@"; do
    seeds=fuzz/seeds/$target
    # AddressSanitizer runs on the target that reaches the engine's unsafe code. The others run safe
    # Rust, or machine code of guests.
    sanitizer=none
    if [ "$target" = gguf ]; then
        seeds=$(mktemp -d)
        cp host/engine/tests/data/tokenizers/*.gguf tests/data/language/*.gguf "$seeds"
        cat tests/data/language/split-*.gguf >"$seeds/parts"
        sanitizer=address
    fi
    if [ "$target" = tokenizer ]; then
        seeds=$(mktemp -d)
        for file in tests/data/text-models/*/tokenizer.json; do
            cp "$file" "$seeds/$(basename "$(dirname "$file")").json"
        done
    fi
    mkdir -p "fuzz/corpus/$target"
    printf 'fuzz: %s, %s s\n' "$target" "$seconds"
    cargo +nightly fuzz run --sanitizer "$sanitizer" "$target" "fuzz/corpus/$target" "$seeds" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0
done
