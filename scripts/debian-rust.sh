#!/bin/sh
# Unpacks Debian's Rust compiler and the sources of its standard library into FOLDER, once, without
# installing them, and prints the folder of its `rustc`. The compiler builds the standard library
# (-Zbuild-std) for targets that rustup cannot download.
#
#     scripts/debian-rust.sh FOLDER
set -eu

fail() { printf 'debian-rust: %s\n' "$*" >&2; exit 1; }

root=${1:?FOLDER is missing: where to unpack}
if [ ! -e "$root/complete" ]; then
    command -v apt-get >/dev/null && command -v dpkg >/dev/null ||
        fail "no apt-get and dpkg: this is not Debian; add the target with rustup and try again"
    rm -rf "$root"
    mkdir -p "$root/packages"
    root=$(cd "$root" && pwd)
    needs() { apt-cache depends "$1" | sed -n "s/^ *Depends: \($2\)\$/\1/p" | head -n 1; }
    std=$(needs libstd-rust-web-dev 'libstd-rust-web-1\.[0-9]*')
    llvm=$(needs "${std:-none}" 'libllvm[0-9]*')
    [ -n "$llvm" ] || fail "apt knows no rustc-web; run \`apt-get update\` (on Debian 12 or later) and try again"
    printf "debian-rust: downloading Debian's rustc-web, its sources and %s (140 MB, once)\n" "$llvm" >&2
    (cd "$root/packages" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download rustc-web libstd-rust-web-dev "$std" rust-web-src "$llvm") ||
        fail "apt-get could not download the packages; see above"
    for package in "$root"/packages/*.deb; do
        dpkg -x "$package" "$root"
    done
    rm -r "$root/packages"
    libraries=$root/usr/lib:$(dirname "$(find "$root/usr/lib" -name 'libLLVM.so.*' | head -n 1)")
    cat >"$root/rustc" <<RUSTC
#!/bin/sh
LD_LIBRARY_PATH='$libraries'\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH} exec '$root/usr/bin/rustc' "\$@"
RUSTC
    chmod +x "$root/rustc"
    : >"$root/complete"
fi
cd "$root" && pwd
