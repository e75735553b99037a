"""The sandbox of `infer` beside wasmtime's own wasi-nn host, in alternating rounds.

    python benches/peers/stock.py

Both sides use the same guest component (target/guests/predict.wasm), the same model and the same
ONNX Runtime. Each request gets a fresh instance of a pool, passes it a tensor of 602 KB, and
receives the outputs. The peer is wasmtime-wasi-nn, pinned in stock/Cargo.lock, with one thread per
session as in `infer`. It has one session behind a lock, where `infer` has one per core. The script
first checks that both return the same outputs.
"""

import array
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import classifiers
import sides

CRATE = Path(__file__).with_name("stock")
MODELS = ["efficientnet-lite0", "nsfw-mobilenet"]
SHAPE = [1, 3, 224, 224]
LOADS = [1, 2]


def built(crate: Path, name: str) -> Path:
    """Builds the peer, and returns the path of its program."""
    folder = sides.TARGET / "peers" / crate.name
    try:
        subprocess.run(
            ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", crate / "Cargo.toml", "--target-dir", folder],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise sides.Skip(f"`{crate}` does not build: {error}") from error
    return folder / "release" / name


def onnxruntime() -> Path:
    """Returns the path of the library that `infer` loads."""
    if named := os.environ.get("ORT_DYLIB_PATH"):
        return sides.needed(Path(named), "ORT_DYLIB_PATH names it")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infer"
    folder = Path(os.environ.get("INFER_CACHE") or cache) / "onnxruntime"
    found = sorted(folder.glob("libonnxruntime.so.*"))
    return found[-1] if found else sides.needed(folder / "libonnxruntime.so", "run `make onnxruntime`")


def main() -> list[dict]:
    """Measures both sides on each model."""
    parser = sides.parser(__doc__, 7)
    parser.add_argument("--guest", type=Path, default=sides.TARGET / "guests" / "predict.wasm", help="(default: %(default)s)")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="(default: all)")
    parser.add_argument("--seconds", type=float, default=4, help="duration of each measurement (default: %(default)s)")
    arguments = parser.parse_args()
    versions = {"infer": sides.version_of(arguments.infer)}
    guest, library = sides.needed(arguments.guest, "run `make guests`"), onnxruntime()
    program = built(CRATE, "stock-peer")
    comparisons = []
    with tempfile.TemporaryDirectory() as folder:
        tensor = Path(folder) / "tensor"
        tensor.write_bytes(array.array("f", classifiers.made(3 * 224 * 224, whole=False)).tobytes())
        for model in arguments.models:
            weights = sides.ROOT / "weights" / classifiers.MODELS[model]
            command = [program, guest, weights, classifiers.input_of(model), tensor, ",".join(map(str, SHAPE))]
            environment = os.environ | {"ORT_DYLIB_PATH": str(library)}
            with sides.CommandProcess(command, env=environment) as peer, classifiers.configured(model, 1, max(LOADS)) as config:
                classifiers.agree(arguments.infer, config, model, peer.ask("answer"))

                def infer_turn(_: int, model: str = model, config: list[object] = config) -> dict[str, float]:
                    report = sides.bench(
                        arguments.infer, *config, "--model", model, "--task", "tensor", "-r", 1,
                        "-c", ",".join(map(str, LOADS)), "-z", f"{arguments.seconds}s",
                    )  # fmt: skip
                    rows = [row for row in report["rows"] if row["path"] == "sandbox"]
                    return {f"{row['concurrency']} at once": row["inferences_per_second"] for row in rows}

                def peer_turn(_: int, peer: sides.CommandProcess = peer) -> dict[str, float]:
                    figures = {}
                    for load in LOADS:
                        peer.ask(f"run {load} 0.5")
                        ran = peer.ask(f"run {load} {arguments.seconds}")
                        figures[f"{load} at once"] = ran["inferences"] / ran["seconds"]
                    return figures

                title = f"{model}, sandboxed inferences/s"
                turns = {"infer": infer_turn, "wasmtime-wasi-nn 48.0.8": peer_turn}
                comparisons.append(sides.interleave(sides.Comparison(title, "infer"), turns, arguments.rounds))
    return sides.show(comparisons, arguments.output, versions | {"ONNX Runtime": library.name.rsplit(".so.", 1)[-1]})


if __name__ == "__main__":
    sys.exit(sides.finish(main))
