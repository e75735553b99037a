#!/bin/sh
# Compares the tokens of real vocabularies with those of other implementations, and the renderings
# of published chat templates with those of Jinja2: scripts/test-tokenizers.sh PYTHON TEXTS…
#
# Uses the first 2,000 lines of TEXTS, and llama.cpp's vectors for its vocabularies.
set -eu
python=$1
shift
cd "$(dirname "$0")/.."
packages=${INFER_CACHE:-$HOME/.cache/infer}/packages
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

"$python" tests/scripts/gguf_vocabularies.py "$packages" "$work" "$work/lines"
for vocabulary in "$work"/*.gguf; do
    texts=${vocabulary%.gguf}
    TOKENIZER=$vocabulary TEXTS=$texts.texts IDS=$texts.ids SEPARATOR='\n__ggml_vocab_test__\n' \
        cargo test --quiet --release --locked -p infer-engine --lib -- \
        --ignored --nocapture real_vocabulary_equals_the_reference | grep 'the same tokens'
done

"$python" tests/scripts/chat_templates.py --archive "$packages"/llama_cpp_python-0.3.36.tar.gz \
    --out "$work/templates.json"
TEMPLATES=$work/templates.json cargo test --quiet --release --locked -p infer-engine --lib -- \
    --ignored --nocapture published_templates_render_like_jinja2 | grep 'render the same text'
