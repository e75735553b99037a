#!/usr/bin/env bash
# Puts ONNX Runtime's shared library into the cache folder, from the wheel on PyPI. Without it
# `infer` uses its embedded backend, which is several times slower, so a failure here is reported
# and is not fatal.
set -euo pipefail

version=1.32.0
cache=${INFER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/infer}/onnxruntime

say() { printf 'onnxruntime: %s\n' "$*"; }
give_up() { say "$*; infer will use its embedded backend"; exit 0; }

if [ -e "$cache/libonnxruntime.so.$version" ]; then exit 0; fi

if ! python3 -m pip --version >/dev/null 2>&1; then
    say "installing python3-pip, which fetches the wheel"
    { apt-get update -qq && apt-get install -y -qq python3-pip; } >/dev/null || give_up "cannot install python3-pip"
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
say "fetching version $version into $cache"
python3 -m pip download --quiet --no-deps --only-binary=:all: -d "$scratch" "onnxruntime==$version" ||
    give_up "cannot download the wheel"
mkdir -p "$cache"
# Written under a temporary name and renamed, so that an incomplete library is never loaded.
python3 - "$scratch" "$cache" "$version" <<'PYTHON'
import glob, os, sys, zipfile
scratch, cache, version = sys.argv[1:]
name = f"libonnxruntime.so.{version}"
with zipfile.ZipFile(glob.glob(f"{scratch}/*.whl")[0]) as wheel:
    with open(f"{cache}/.{name}", "wb") as library:
        library.write(wheel.read(f"onnxruntime/capi/{name}"))
os.rename(f"{cache}/.{name}", f"{cache}/{name}")
PYTHON
say "installed"
