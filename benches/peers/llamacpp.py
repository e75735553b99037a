"""Build llama.cpp for this processor, and compare its speed with `infer` on GGUF files.

    python benches/peers/llamacpp.py build                    # into target/peers; 15 minutes
    python benches/peers/llamacpp.py bench phi3-q4_k_m.gguf   # in alternating rounds
    python benches/peers/llamacpp.py bench --instruction-set avx2 phi3-q4_k_m.gguf
    python benches/peers/llamacpp.py bench --llama-bench "ik=/opt/ik/llama-bench -rtr 1" FILE

The source is that of the llama-cpp-python sdist, pinned by its sha256. clang 19 compiles it if it
is installed (gcc 12 does not support Zen 5). pip installs cmake, ninja and the Python packages into
target/peers/venv, which tests/scripts/{small_models,greedy,phi3_top1}.py also use.

Each variant is a folder of binaries, target/peers/VARIANT/bin. `bench` runs llama-bench of each
variant that fits the instruction set, with flash attention on and off, and `infer bench` on the
same file and number of threads. They process prompts of 16 to 512 random tokens without a cached
prefix, and 32 single tokens after a prompt of one: in one session, and with llama-batched-bench in
as many sessions at once as --together. The ratio is against llama.cpp's best result for each
metric. `--llama-bench` adds another program with llama-bench's options and JSON, such as one of a
fork or of another version, to the same rounds; it computes on its own instruction set. If
llama-server was built, the script first checks that both give the same answers the same likelihood.
"""

import argparse
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sides

FOLDER = sides.TARGET / "peers"
SDIST = "llama_cpp_python-0.3.36.tar.gz"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
TOOLS = ["cmake==4.4.4", "ninja==1.13.2", "scikit-build-core==1.1.2"]
TARGETS = ["llama-bench", "llama-quantize", "llama-perplexity", "llama-batched-bench", "llama-server"]
BASE = {
    "CMAKE_BUILD_TYPE": "Release", "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON", "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "BUILD_SHARED_LIBS": "ON", "LLAMA_BUILD_TESTS": "OFF", "LLAMA_BUILD_EXAMPLES": "OFF", "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_CURL": "OFF", "LLAMA_OPENSSL": "OFF", "LLAMA_BUILD_UI": "OFF", "LLAMA_USE_PREBUILT_UI": "OFF",
}  # fmt: skip
NATIVE = {"GGML_NATIVE": "ON", "GGML_CPU_REPACK": "ON"}
PORTABLE = {
    "GGML_NATIVE": "OFF", "GGML_CPU_REPACK": "ON", "GGML_AVX": "ON", "GGML_AVX2": "ON", "GGML_FMA": "ON",
    "GGML_F16C": "ON", "GGML_BMI2": "ON", "GGML_AVX_VNNI": "OFF",
}  # fmt: skip
VARIANTS = {  # the Python scripts load the last one
    "avx2": PORTABLE,
    "avxvnni": PORTABLE | {"GGML_AVX_VNNI": "ON"},
    "norepack": NATIVE | {"GGML_CPU_REPACK": "OFF"},
    "repack": NATIVE,
}

COMPARED = {"best": ["repack", "norepack"], "avx2": ["avx2"], "avx-vnni": ["avxvnni"]}

PREFILL, DECODE = [16, 32, 40, 64, 128, 512], 32  # tokens: those of `infer bench`

# Prompts for the check of both sides, and the maximum difference of their log-odds: they round
# activations to int8 differently, which moves a logit by up to 0.3 (docs/BENCHMARKS.md).
PROMPTS = [
    "Is the river that runs through the old town deeper than it was before the bridge was built? Answer:",
    "The council wants to close the market on Sundays. Will the bakery stay open? Answer:",
    "A neighbour says that dogs are not allowed in the garden any more. Is that right? Answer:",
    "Two and two are five. Correct? Answer:",
]
CHOICES = [[" yes", " no"], ["y", "n"]]  # the latter for the made-up vocabularies of `infer dummy`
AGREEMENT = 0.75


def run(*command: str | Path, **options: object) -> None:
    """Runs a command. Raises CalledProcessError if it fails."""
    subprocess.run([str(part) for part in command], check=True, **options)


def compiler() -> tuple[str, str, str]:
    """Returns the prefix of the variants, the C compiler and the C++ compiler."""
    if shutil.which("clang-19"):
        return "clang19", "clang-19", "clang++-19"
    print("clang-19 is not installed (apt-get install clang-19 libomp-19-dev): building with gcc", file=sys.stderr)
    return "gcc", "gcc", "g++"


def source(folder: Path, python: Path) -> Path:
    """Returns the folder of the unpacked sdist, downloaded if it is missing."""
    archive = folder / "sdist" / SDIST
    if not archive.exists():
        requirement = "llama-cpp-python==0.3.36"
        run(
            python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "llama-cpp-python",
            "--no-build-isolation", "--dest", archive.parent, requirement, env=path_with(python),
        )  # fmt: skip
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise ValueError(f"`{archive}`: expected sha256 {SDIST_SHA256}, found {digest}; delete it to download it again")
    unpacked = folder / "src"
    if not unpacked.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder / "unpacking", filter="data")
        (folder / "unpacking" / SDIST.removesuffix(".tar.gz")).rename(unpacked)
    return unpacked


def path_with(python: Path) -> dict[str, str]:
    """Returns the environment with the folder of this Python first in PATH."""
    return os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}


def build(folder: Path, names: list[str], jobs: int) -> None:
    """Builds the variants, and the Python environment around the last."""
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(folder / "venv", with_pip=True)
    requirements = (sides.ROOT / "tests" / "scripts" / "requirements-language.txt").read_text().splitlines()
    packages = [line for line in requirements if line and line[0] != "#" and not line.startswith("llama-cpp-python")]
    run(python, "-m", "pip", "install", "--quiet", *TOOLS, *packages)
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


class LlamaServer:
    """llama.cpp's server on a file, and its token probabilities."""

    def __init__(self, binaries: Path, file: Path, port: int, *options: object) -> None:
        self.binary = sides.needed(binaries / "llama-server", "build it: python benches/peers/llamacpp.py build")
        self.port = port
        self.command = [self.binary, "-m", file, "--port", port, "--no-ui", "--offline", *options]

    def running(self) -> contextlib.AbstractContextManager[subprocess.Popen]:
        """Starts the server, and stops it on exit."""
        return sides.server(self.command, self.port, "/health")

    def log_odds(self, prompt: str) -> tuple[list[str], float, int]:
        """Returns the first CHOICES of one token each, their log-odds, and the prompt's tokens."""
        client = sides.Client(self.port)

        def tokens(text: str) -> list[int]:
            body = json.dumps({"content": text, "add_special": True, "parse_special": True}).encode()
            return client.post("/tokenize", body)["tokens"]

        known = tokens(prompt)
        for choices in CHOICES:
            ends = [tokens(prompt + choice) for choice in choices]
            if all(end[:-1] == known for end in ends):
                break
        else:
            raise ValueError(f"none of {CHOICES} are one token each after `{prompt[-40:]}`")
        everything = 1 << 20
        body = {"prompt": known, "n_predict": 1, "n_probs": everything, "temperature": 0, "cache_prompt": False}
        answer = client.post("/completion", json.dumps(body).encode())
        first = answer["completion_probabilities"][0]["top_logprobs"]
        by_token = {entry["id"]: entry["logprob"] for entry in first}
        return choices, by_token[ends[0][-1]] - by_token[ends[1][-1]], len(known)


def agree(infer: Path, arguments: list[object], server: LlamaServer) -> float:
    """Returns the largest difference of the log-odds of two answers over PROMPTS.

    Raises ValueError if it exceeds AGREEMENT, or if the sides count different numbers of tokens.
    """
    largest = 0.0
    with server.running():
        for prompt in PROMPTS:
            choices, theirs, tokens = server.log_odds(prompt)
            output = sides.output_of([infer, "score", *arguments, "--raw", "--choices", ",".join(choices), "-o", "json", prompt])
            answer = json.loads(output)
            logprobs = [choice["logprob"] for choice in answer["choices"]]
            if answer["usage"]["prompt_tokens"] != tokens:
                raise ValueError(f"`{prompt}` has {answer['usage']['prompt_tokens']} tokens in `infer`, and {tokens} in llama.cpp")
            largest = max(largest, abs(logprobs[0] - logprobs[1] - theirs))
    if largest > AGREEMENT:
        raise ValueError(f"log-odds of two answers differ by {largest:.2f}, expected at most {AGREEMENT}: the models differ")
    return largest


@contextlib.contextmanager
def configured(file: Path, lines: list[str]) -> Iterator[list[object]]:
    """Yields arguments for `infer` that configure a GGUF file as the model `peer`.

    `lines` of configuration follow its source.
    """
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "infer.toml"
        source = json.dumps(str(file.resolve()))
        config.write_text("\n".join([f"[models.peer]\nsource = {source}", *lines]) + "\n", encoding="utf-8")
        yield ["--config", config]


@dataclass(frozen=True)
class LlamaBench:
    """A llama-bench: its name in tables, its file, and switches of its own."""

    name: str
    binary: Path
    switches: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "LlamaBench":
        """Reads `[NAME=]FILE [SWITCH ...]`, the value of --llama-bench."""
        first, *switches = shlex.split(text) or [""]
        name, equals, file = first.partition("=")
        if not equals or "/" in name:
            name, file = "", first
        binary = Path(file).resolve()
        if not (binary.is_file() and os.access(binary, os.X_OK)):
            raise argparse.ArgumentTypeError(f"`{file}`: expected a built llama-bench, found no executable file; build it")
        if not name:
            # Builds have the same file name, so the folder above `build/bin` distinguishes them.
            above = (folder.name for folder in binary.parents if folder.name not in ("bin", "build", ""))
            name = next(above, binary.name) if binary.name == "llama-bench" else binary.name
        return cls(name, binary, tuple(switches))

    def turns(self, flash: list[str]) -> dict[str, list[str]]:
        """Returns the switches of each turn by its title; by default those for flash attention."""
        own = list(self.switches)
        variants = [[]] if "-fa" in own or "--flash-attn" in own else [["-fa", one] for one in flash]
        return {", ".join(filter(None, [self.name, " ".join(own + one)])): own + one for one in variants}

    def command(self, file: Path, arguments: argparse.Namespace, switches: list[str]) -> list[object]:
        """Returns the command of one turn."""
        return [
            self.binary, "-m", file, "-t", arguments.threads, "-r", 1, "-o", "json",
            "-p", ",".join(map(str, PREFILL)), "-n", DECODE, *switches,
        ]  # fmt: skip


def llama_bench(command: list[object]) -> tuple[dict[str, float], str]:
    """Returns tokens per second of one run of llama-bench, after its warm-up, and its version."""
    found, version = {}, ""
    for result in json.loads(sides.output_of(command)):
        name = f"decode {result['n_gen']}" if result["n_gen"] else f"prefill {result['n_prompt']}"
        found[name] = result["avg_ts"]
        version = f"{result.get('build_commit', 'unknown')} ({result.get('build_number', 0)})"
    return found, version


def batched_bench(binary: Path, file: Path, arguments: argparse.Namespace, switches: list[str]) -> dict[str, float]:
    """Returns tokens per second of all sessions of one run of llama-batched-bench."""
    context = max(arguments.together) * (DECODE + 1)
    lines = sides.output_of([
        binary, "-m", file, "-t", arguments.threads, "-c", context, "-npp", 1, "-ntg", DECODE,
        "-npl", ",".join(map(str, arguments.together)), "--output-format", "jsonl", *switches,
    ]).splitlines()  # fmt: skip
    results = [json.loads(line) for line in lines if line.startswith("{")]
    return {f"{result['pl']} x decode {result['tg']}": result["speed_tg"] for result in results}


def infer_bench(infer: Path, common: list[object], threads: int, together: list[int]) -> dict[str, float]:
    """Returns tokens per second of one run of `infer bench`.

    Prompts have no cached prefix; single tokens follow a prompt of one.
    """
    sessions = ",".join(map(str, [1, *together]))
    report = sides.bench(
        infer, *common, "--task", "generate", "--native", "-n", 1, "-r", 1, "-c", sessions, "--warmup", "500ms"
    )
    if report["model"]["threads"] != threads:
        raise ValueError(f"`infer` ran on {report['model']['threads']} threads, expected {threads}")
    found = {f"prefill {one['tokens']}": one["tokens_per_second"] for one in report["prefill"]}
    for one in report["decode"]:
        name = f"decode {one['tokens']}" if one["sessions"] == 1 else f"{one['sessions']} x decode {one['tokens']}"
        found[name] = one["tokens_per_second"]
    return found


def bench(folder: Path, arguments: argparse.Namespace) -> list[dict]:
    """Measures `infer`, and each variant and switch of the others, on each file."""
    infer = sides.needed(arguments.infer, "build it with `make build`, or name it with --infer")
    prefix = arguments.compiler or compiler()[0]
    present = {
        name: folder / f"{prefix}-{name}" / "bin"
        for name in COMPARED[arguments.instruction_set]
        if (folder / f"{prefix}-{name}" / "bin" / "llama-bench").exists()
    }
    peers = [LlamaBench(f"llama.cpp {name}", binaries / "llama-bench") for name, binaries in present.items()]
    peers += arguments.llama_bench
    if not peers:
        names = ", ".join(f"{prefix}-{name}" for name in COMPARED[arguments.instruction_set])
        raise sides.Skip(f"`{folder}` has none of {names}; build them: python benches/peers/llamacpp.py build")
    planned = [(peer, title, switches) for peer in peers for title, switches in peer.turns(arguments.flash.split(",")).items()]
    titles = [title for _, title, _ in planned]
    if repeated := {title for title in titles if titles.count(title) > 1}:
        raise ValueError(f"--llama-bench: several are named `{repeated.pop()}`; name them: --llama-bench NAME=FILE")
    level = ["--instruction-set", arguments.instruction_set] if arguments.instruction_set != "best" else []
    comparisons, versions = [], {}
    for file in arguments.files:
        if not file.exists():
            raise sides.Skip(f"`{file}` is missing")
        if arguments.dry_run:
            for peer, title, switches in planned:
                print(f"{title}: {shlex.join(map(str, peer.command(file, arguments, switches)))}")
            continue
        title = f"{file.name}, tokens/s" + (f", {arguments.instruction_set}" if level else "")
        with configured(file, [f"threads = {arguments.threads}"]) as config:
            common = [*config, *level, "--model", "peer"]
            server = next((binaries for binaries in present.values() if (binaries / "llama-server").exists()), None)
            if server:
                options = ["-t", arguments.threads, "-np", 1, "-c", 512]
                difference = agree(infer, common, LlamaServer(server, file, sides.free_port(), *options))
                print(f"{file.name}: log-odds of two answers differ by at most {difference:.3f}", file=sys.stderr)
            else:
                print(f"{file.name}: answers are not compared: llama-server was not built", file=sys.stderr)
            turns = {"infer": lambda _: infer_bench(infer, common, arguments.threads, arguments.together)}
            for peer, name, switches in planned:
                command = peer.command(file, arguments, switches)

                batched = peer.binary.with_name("llama-batched-bench")

                def turn(
                    _: int,
                    peer: LlamaBench = peer,
                    command: list[object] = command,
                    batched: Path = batched,
                    switches: list[str] = switches,
                ) -> dict[str, float]:
                    found, versions[peer.name] = llama_bench(command)
                    if arguments.together and batched.exists():
                        found |= batched_bench(batched, file, arguments, switches)
                    return found

                turns[name] = turn
            comparisons.append(sides.interleave(sides.Comparison(title, "infer"), turns, arguments.rounds))
    if arguments.dry_run:
        return []
    sdist = {"llama.cpp of": SDIST.removesuffix(".tar.gz"), "by": prefix} if present else {}
    others = {peer.name: versions[peer.name] for peer in arguments.llama_bench if peer.name in versions}
    versions = {"infer": sides.version_of(infer), **sdist, **others, "threads": str(arguments.threads)}
    return sides.show(comparisons, arguments.output, versions)


def main() -> list[dict]:
    """Builds or measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the variants (default: %(default)s)")
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build", help="build the variants")
    making.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    making.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    timing = commands.add_parser("bench", help="compare `infer` and llama.cpp on files, in alternating rounds")
    timing.add_argument("files", type=Path, nargs="+", metavar="FILE")
    timing.add_argument("--instruction-set", choices=COMPARED, default="best", help="instruction set of both sides (default: %(default)s)")
    timing.add_argument("--compiler", help="prefix of the variants (default: clang19 if clang-19 is installed, else gcc)")
    timing.add_argument(
        "--llama-bench", type=LlamaBench.parse, action="append", default=[], metavar="[NAME=]FILE [SWITCH ...]",
        help="another built llama-bench, in the same rounds; may be repeated",
    )  # fmt: skip
    timing.add_argument("--dry-run", action="store_true", help="print the commands of the peers, and run none")
    timing.add_argument("--flash", default="1,0", help="llama.cpp's -fa switches (default: %(default)s)")
    timing.add_argument(
        "--together", type=lambda text: [int(one) for one in text.split(",") if one], default=[8, 16], metavar="N,...",
        help="sessions that decode at once; llama.cpp's rate is of the llama-batched-bench beside each llama-bench (default: 8,16)",
    )  # fmt: skip
    timing.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    sides.add_options(timing, 3)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.command == "bench":
        return bench(folder, arguments)
    folder.mkdir(parents=True, exist_ok=True)
    build(folder, [name for name in VARIANTS if name in arguments.variants], arguments.jobs)
    return []


if __name__ == "__main__":
    sys.exit(sides.finish(main))
