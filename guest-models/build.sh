#!/bin/sh
# Builds every guest into a component: ${CARGO_TARGET_DIR:-target}/guests/NAME.wasm. `make guests`
# calls it.
#
# GUEST_TOOLCHAIN=rustup  the compiler in use, with its wasm32-unknown-unknown target, which rustup
#                         adds if it is missing
# GUEST_TOOLCHAIN=debian  Debian's compiler and its sources, unpacked under the target folder,
#                         without installing them; also builds the standard library
# GUEST_TOOLCHAIN=auto    rustup if it works, else debian (default)
set -eu

say() { printf 'guests: %s\n' "$*"; }
fail() { printf 'guests: %s\n' "$*" >&2; exit 1; }

cd "$(dirname "$0")/.."
triple=wasm32-unknown-unknown
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
command -v cargo >/dev/null && command -v rustc >/dev/null || fail "no \`cargo\` and \`rustc\` in PATH; install Rust first, from https://rustup.rs or your distribution"
case ${GUEST_TOOLCHAIN:=auto} in
rustup | debian | auto) ;;
*) fail "GUEST_TOOLCHAIN: expected rustup, debian or auto, found \`$GUEST_TOOLCHAIN\`" ;;
esac
sysroot=$(rustc --print sysroot)

# Guests are the crates that build a cdylib; the SDK and componentize do not.
guests=
for manifest in guest-models/*/Cargo.toml; do
    if grep -q '"cdylib"' "$manifest"; then
        guests="$guests $(basename "$(dirname "$manifest")")"
    fi
done

# Succeeds if the compiler in use has the target, which rustup may have to add.
have_target() {
    [ ! -d "$sysroot/lib/rustlib/$triple/lib" ] || return 0
    command -v rustup >/dev/null || { say "$triple is missing, and rustup is not installed"; return 1; }
    say "adding $triple with rustup"
    rustup target add "$triple"
}

# Prints a linker for WebAssembly, which Debian's compiler lacks: rust-lld of the compiler in use,
# or lld.
linker() {
    host=$(rustc -vV | sed -n 's/^host: //p')
    for candidate in "$sysroot/lib/rustlib/$host/bin/rust-lld" rust-lld wasm-ld lld; do
        ! command -v "$candidate" || return 0
    done
    fail "no linker for WebAssembly: neither rust-lld beside rustc nor wasm-ld in PATH; install the package \`lld\`"
}

# Compiles every guest: build_guests TARGET-FOLDER [CARGO ARGUMENT…].
build_guests() {
    folder=$1
    shift
    for guest in $guests; do
        set -- "$@" --package "$guest"
    done
    cargo build --quiet --profile guest --target "$triple" --lib --target-dir "$folder" "$@"
    modules=$folder/$triple/guest
}

build_with_rustup() {
    say "compiling$guests with $(rustc --version)"
    build_guests "$target"
}

build_with_debian() {
    toolchain=$(scripts/debian-rust.sh "$target/guest-toolchain") || exit 1
    linker=$(linker)
    export RUSTC="$toolchain/rustc"
    say "compiling$guests and the standard library with Debian's $("$RUSTC" --version)"
    # Building the standard library is a nightly option; RUSTC_BOOTSTRAP permits it in Debian's
    # stable compiler.
    export RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$linker"
    build_guests "$target/guests-debian" -Zbuild-std=std,panic_abort
}

say "compiling componentize"
cargo build --quiet --package componentize --target-dir "$target"

case $GUEST_TOOLCHAIN in
rustup)
    have_target || fail "rustup could not add $triple; GUEST_TOOLCHAIN=debian builds without it"
    build_with_rustup
    ;;
debian) build_with_debian ;;
auto)
    if have_target; then
        build_with_rustup
    else
        say "trying Debian's compiler instead"
        build_with_debian
    fi
    ;;
esac

mkdir -p "$target/guests"
for guest in $guests; do
    # File names of crates have underscores instead of hyphens.
    "$target/debug/componentize" "$modules/$(printf %s "$guest" | tr - _).wasm" "$target/guests/$guest.wasm"
done
