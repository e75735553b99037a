#!/bin/sh
# Compares the tokens of real vocabularies with those of Python's tokenizers:
# scripts/test-tokenizers.sh PYTHON TEXTS…
#
# Uses the first 2,000 lines of TEXTS, and llama.cpp's vectors for its vocabularies.
set -eu
python=$1
shift
cd "$(dirname "$0")/.."
cache=${INFER_CACHE:-$HOME/.cache/infer}/tokenizers
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" tests/text_models/vocabularies.py
cat "$@" </dev/null | head -n 2000 >"$work/lines"

# compare TOKENIZER TEXTS SEPARATOR
compare() {
    "$python" tests/text_models/tokens.py "$1" --split "$3" "$2" >"$work/ids"
    TOKENIZER=$1 TEXTS=$2 IDS=$work/ids SEPARATOR=$3 cargo test --quiet --release --locked --workspace --lib -- \
        --ignored --nocapture real_tokens_equal_the_reference | grep 'the same tokens'
}

for tokenizer in "$cache"/*.json tests/data/text-models/*/tokenizer.json weights/moderation-encoder/tokenizer.json; do
    [ ! -s "$work/lines" ] || compare "$PWD/$tokenizer" "$work/lines" '\n' 2>/dev/null || compare "$tokenizer" "$work/lines" '\n'
    case $tokenizer in
    "$cache"/*) compare "$tokenizer" "$cache/vectors.inp" '\n__ggml_vocab_test__\n' ;;
    esac
done
