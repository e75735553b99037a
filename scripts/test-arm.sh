#!/bin/sh
# Builds the kernels' tests for 64-bit ARM and runs them under qemu on three CPUs, one for each
# instruction set. `make test-arm` installs qemu and the cross linker, and calls it.
set -eu

say() { printf 'test-arm: %s\n' "$*"; }

cd "$(dirname "$0")/.."
triple=aarch64-unknown-linux-gnu
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

set -- test --release --locked --package infer-kernels --lib --no-run --target "$triple" --message-format=json
if [ -d "$(rustc --print sysroot)/lib/rustlib/$triple/lib" ] || rustup target add "$triple" 2>/dev/null; then
    say "compiling with $(rustc --version)"
else
    toolchain=$(scripts/debian-rust.sh "$target/guest-toolchain")
    export RUSTC="$toolchain/rustc" RUSTC_BOOTSTRAP=1
    say "rustup cannot add $triple; compiling the tests and the standard library with Debian's $("$RUSTC" --version)"
    set -- "$@" -Zbuild-std=std,panic_unwind,test --target-dir "$target/arm-debian"
fi
tests=$(cargo "$@" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -n "$tests" ] || { say "cargo built no tests" >&2; exit 1; }

# The CPU of a Raspberry Pi 4 has neither extension, that of a Graviton 2 has dotprod, and qemu's
# `max` has both.
while read -r cpu sets; do
    say "qemu -cpu $cpu: expecting $sets"
    INFER_TEST_INSTRUCTION_SETS=$sets qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$cpu" "$tests" --quiet </dev/null
done <<CPUS
cortex-a72 portable
neoverse-n1 neon-dotprod,portable
max neon-i8mm,neon-dotprod,portable
CPUS
