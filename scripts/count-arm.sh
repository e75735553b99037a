#!/bin/sh
# Counts the instructions of the kernels' products on 64-bit ARM under qemu, where nothing can be
# timed. Prints, by type and number of tokens, instructions per 32 rows × 32 columns × token.
# Usage: count-arm.sh [INSTRUCTION_SET]. `make count-arm` installs qemu and the cross linker, and
# calls it.
set -eu

set_name=${1:-neon-i8mm}
cd "$(dirname "$0")/.."
triple=aarch64-unknown-linux-gnu
target=${CARGO_TARGET_DIR:-target}
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

rustup target add "$triple" 2>/dev/null || true
cargo build --release --locked --quiet --package infer-kernels --example products --target "$triple"
cc -O2 -shared -fPIC -o "$target/count-instructions.so" scripts/count-instructions.c

# Arguments: type, tokens, number of products.
count() {
    qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max -plugin "$target/count-instructions.so" \
        "$target/$triple/release/examples/products" "$@" "$set_name" 2>&1 | tail -n 1
}

tokens='1 2 8 16 40 128'
echo "| $set_name |$(printf ' %s |' $tokens)"
echo "|---|$(printf -- '---|%.0s' $tokens)"
for ty in Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4; do
    printf '| %s |' "$ty"
    for n in $tokens; do
        # The first product also quantises the input. The matrix has 2 × 96 blocks.
        one=$(count "$ty" "$n" 1) two=$(count "$ty" "$n" 2) blocks=$((192 * n))
        printf ' %s |' $(((two - one + blocks / 2) / blocks))
    done
    echo
done
