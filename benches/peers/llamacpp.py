"""Build llama.cpp at its best for this processor, and time it on a GGUF file.

    python benches/peers/llamacpp.py build                    # into target/peers, about 10 minutes on two cores
    python benches/peers/llamacpp.py bench phi3-q4_k_m.gguf   # medians of interleaved runs, repacking on and off

The source is the one that the llama-cpp-python sdist carries, by its sha256. clang 19 compiles it where there is one
(gcc 12 knows no Zen 5); cmake, ninja and Python's own needs come from pip into target/peers/venv, which also is the
environment of tests/scripts/{small_models,greedy,phi3_top1}.py.

Each variant is a folder of binaries, target/peers/VARIANT/bin. Repacking is also a switch at run time (`--repack 0`),
which `bench` uses; clang19-norepack lacks it in the build.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SDIST = "llama_cpp_python-0.3.36.tar.gz"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TOOLS = ["cmake==4.4.4", "ninja==1.13.2", "scikit-build-core==1.1.2"]
TARGETS = ["llama-bench", "llama-quantize", "llama-perplexity", "llama-batched-bench"]
BASE = {
    "CMAKE_BUILD_TYPE": "Release", "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON", "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "BUILD_SHARED_LIBS": "ON", "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_EXAMPLES": "OFF", "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_CURL": "OFF", "LLAMA_OPENSSL": "OFF",
}  # fmt: skip
NATIVE = {"GGML_NATIVE": "ON", "GGML_CPU_REPACK": "ON"}
PORTABLE = {
    "GGML_NATIVE": "OFF", "GGML_CPU_REPACK": "ON", "GGML_AVX": "ON", "GGML_AVX2": "ON", "GGML_FMA": "ON",
    "GGML_F16C": "ON", "GGML_BMI2": "ON", "GGML_AVX_VNNI": "OFF",
}  # fmt: skip
VARIANTS = {  # the last is what the Python scripts load
    "avx2": PORTABLE,
    "avxvnni": PORTABLE | {"GGML_AVX_VNNI": "ON"},
    "norepack": NATIVE | {"GGML_CPU_REPACK": "OFF"},
    "repack": NATIVE,
}


def run(*command: str | Path, **options: object) -> None:
    """A command that must succeed."""
    subprocess.run([str(part) for part in command], check=True, **options)


def compiler() -> tuple[str, str, str]:
    """The variants' prefix, the C and the C++ compiler."""
    if shutil.which("clang-19"):
        return "clang19", "clang-19", "clang++-19"
    print("clang-19 is not installed (apt-get install clang-19 libomp-19-dev): building with gcc", file=sys.stderr)
    return "gcc", "gcc", "g++"


def source(folder: Path, python: Path) -> Path:
    """The unpacked sdist, fetched where it is missing."""
    archive = folder / "sdist" / SDIST
    if not archive.exists():
        requirement = "llama-cpp-python==0.3.36"
        run(
            python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python",
            "--no-build-isolation", "--dest", archive.parent, requirement, env=path_with(python),
        )  # fmt: skip
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise ValueError(f"`{archive}`: expected sha256 {SDIST_SHA256}, found {digest}; delete it to fetch it again")
    unpacked = folder / "src"
    if not unpacked.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "unpacking", filter="data")
        (folder / "unpacking" / SDIST.removesuffix(".tar.gz")).rename(unpacked)
    return unpacked


def path_with(python: Path) -> dict[str, str]:
    """The process's environment, with the tools beside this Python first."""
    return os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}


def build(folder: Path, names: list[str], jobs: int) -> None:
    """The variants, and the Python environment around the last."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    requirements = (ROOT / "tests" / "scripts" / "requirements-language.txt").read_text().splitlines()
    wanted = [line for line in requirements if line and line[0] != "#" and not line.startswith("llama-cpp-python")]
    run(python, "-m", "pip", "install", "--quiet", *TOOLS, *wanted)
    unpacked = source(folder, python)
    prefix, c, cpp = compiler()
    environment = path_with(python)
    for name in names:
        flags = BASE | VARIANTS[name] | {"CMAKE_C_COMPILER": c, "CMAKE_CXX_COMPILER": cpp}
        tree = folder / ("build-native" if VARIANTS[name].get("GGML_NATIVE") == "ON" else "build-portable")
        run(
            "cmake", "-G", "Ninja", "-S", unpacked / "vendor" / "llama.cpp", "-B", tree,
            *(f"-D{key}={value}" for key, value in flags.items()), env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        run("ninja", "-C", tree, "-j", str(jobs), *TARGETS, env=environment)
        binaries = folder / f"{prefix}-{name}" / "bin"
        shutil.rmtree(binaries, ignore_errors=True)
        shutil.copytree(tree / "bin", binaries, symlinks=True)
        print(f"{binaries} is ready")
    package = next((folder / "venv" / "lib").glob("python3*")) / "site-packages" / "llama_cpp"
    shutil.copytree(unpacked / "llama_cpp", package, dirs_exist_ok=True, ignore=shutil.ignore_patterns("lib"))
    library = package / "lib"
    library.unlink(missing_ok=True)
    library.symlink_to(folder / f"{prefix}-{list(VARIANTS)[-1]}" / "bin")


def bench(folder: Path, arguments: argparse.Namespace) -> None:
    """Medians of interleaved runs, every switch once a round."""
    binary = folder / arguments.variant / "bin" / "llama-bench"
    switches = {
        f"repack {'on' if repack else 'off'}, flash attention {'on' if flash else 'off'}": [
            "--repack", repack, "-fa", flash
        ]  # fmt: skip
        for repack in (1, 0)
        for flash in (1, 0)
    }
    seen: dict[str, dict[str, list[float]]] = {name: {} for name in switches}
    for _ in range(arguments.rounds):
        for name, switch in switches.items():
            command = [
                binary, "-m", arguments.file, "-t", arguments.threads, "-r", 1, "-o", "json",
                "-p", arguments.prefill, "-n", arguments.decode, *switch,
            ]  # fmt: skip
            answer = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
            for result in json.loads(answer):
                decode = result["n_gen"] > 0
                metric = f"decode {result['n_gen']}" if decode else f"prefill {result['n_prompt']}"
                seen[name].setdefault(metric, []).append(result["avg_ts"])
    metrics = list(next(iter(seen.values())))
    print(f"{arguments.file.name}, {arguments.variant}, {arguments.threads} threads, tokens/s: median (min to max)")
    for name, rows in seen.items():
        figures = [f"{metric}: {statistics.median(v):.1f} ({min(v):.1f} to {max(v):.1f})" for metric, v in rows.items()]
        print(f"{name:32} {'   '.join(figures)}")
    best = [f"{metric}: {max(statistics.median(rows[metric]) for rows in seen.values()):.1f}" for metric in metrics]
    print(f"{'best switch for each':32} {'   '.join(best)}")


def main() -> int:
    """The process's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "peers", help="default: %(default)s")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="build the variants")
    making.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    making.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    timing = commands.add_parser("bench", help="time one variant on a file")
    timing.add_argument("file", type=Path)
    timing.add_argument("--variant", default="clang19-repack", help="a folder of binaries (default: %(default)s)")
    timing.add_argument("--threads", type=int, default=os.cpu_count())
    timing.add_argument("--rounds", type=int, default=3)
    timing.add_argument("--prefill", default="128,512", help="prompt lengths (default: %(default)s)")
    timing.add_argument("--decode", default="32", help="tokens to generate (default: %(default)s)")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if arguments.command == "build":
            build(folder, [name for name in VARIANTS if name in arguments.variants], arguments.jobs)
        else:
            bench(folder, arguments)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
