"""Host-accelerated tensors beside the same model compiled into the guest, in alternating rounds.

    python benches/peers/inguest.py

Both sides use the same file, and pass the same tensor to a fresh instance of a guest each time. The
peer's component contains the file and rten, a runtime in pure Rust, with WebAssembly's 128-bit
SIMD; tract, the other candidate, rejects these int8 files. It reads the model in each request, as a
stateless guest must. Requests that compute more than once give the time of one computation without
reading. The script first checks that both return the same outputs.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import classifiers
import sides
import stock

CRATE = Path(__file__).with_name("inguest")
MODELS = ["efficientnet-lite0", "toxic-bilstm"]
TRIPLE = "wasm32-unknown-unknown"
RUNS = {"efficientnet-lite0": 3, "toxic-bilstm": 33}
LIMITS = "memory_bytes = 536870912\nguest_ms = 60000\n"


def component(model: str) -> Path:
    """Builds the guest with the model inside, and returns its path."""
    folder = sides.TARGET / "peers" / CRATE.name
    made = folder / f"{model}.wasm"
    environment = os.environ | {
        "INGUEST_MODEL": str(sides.ROOT / "weights" / classifiers.MODELS[model] / "model.onnx"), "RUSTFLAGS": "-Ctarget-feature=+simd128",
    }  # fmt: skip
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--manifest-path", CRATE / "Cargo.toml", "--target", TRIPLE]
    try:
        subprocess.run([*command, "--target-dir", folder], check=True, env=environment, stdout=subprocess.DEVNULL)
        componentize = sides.needed(sides.TARGET / "debug" / "componentize", "run `make guests`")
        subprocess.run([componentize, folder / TRIPLE / "release" / "inguest.wasm", made], check=True, stdout=subprocess.DEVNULL)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        raise sides.Skip(f"`{CRATE}` does not build: {error}") from error
    return made


def config_of(model: str, guest: object, settings: str) -> str:
    """Returns a configuration of the model on one thread, and of a component that runs it."""
    return (
        f'[models.{model}]\nsource = "builtin:{classifiers.MODELS[model]}"\nthreads = 1\nsessions = 1\n'
        f'[components.guest]\nsource = "{guest}"\nmodels = {{ {model} = "{model}" }}\nsettings = {{ {settings} }}\n'
        f"[components.guest.limits]\n{LIMITS}"
    )


def main() -> list[dict]:
    """Measures both sides on each model."""
    parser = sides.parser(__doc__, 5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, help="(default: all)")
    parser.add_argument("--seconds", type=float, default=3, help="duration of each measurement (default: %(default)s)")
    arguments = parser.parse_args()
    versions = {"infer": sides.version_of(arguments.infer)}
    comparisons = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in arguments.models:
            guest, more = component(model), RUNS[model]
            configs = {}
            kinds = {
                "host": ("builtin:predict", ""), "agree": (guest, f"agreement = {classifiers.AGREEMENT}"),
                "once": (guest, "runs = 1"), "more": (guest, f"runs = {more}"),
            }  # fmt: skip
            for name, (source, settings) in kinds.items():
                configs[name] = Path(scratch) / f"{model}-{name}.toml"
                configs[name].write_text(config_of(model, source, settings), encoding="utf-8")

            def milliseconds(name: str, configs: dict = configs) -> float:
                report = sides.bench(
                    arguments.infer, "--config", configs[name], "--component", "guest", "--task", "tensor", "-c", 1, "-r", 1,
                    "-z", f"{arguments.seconds}s",
                )  # fmt: skip
                row = next(row for row in report["rows"] if row["path"] == "sandbox")
                if row["errors"]:
                    raise ValueError(f"`{name}`: {row['errors']} requests failed")
                return row["p50_ms"]

            milliseconds("agree")

            def infer_turn(_: int, ask: object = milliseconds) -> dict[str, float]:
                rate = 1000 / ask("host")
                return {"a request": rate, "a computation": rate}

            def peer_turn(_: int, ask: object = milliseconds, more: int = more) -> dict[str, float]:
                once, often = ask("once"), ask("more")
                return {"a request": 1000 / once, "a computation": 1000 * (more - 1) / (often - once)}

            title = f"{model}, one at a time, a second"
            turns = {"infer": infer_turn, "rten 0.27 inside the guest": peer_turn}
            comparisons.append(sides.interleave(sides.Comparison(title, "infer"), turns, arguments.rounds))
    return sides.show(comparisons, arguments.output, versions)


if __name__ == "__main__":
    sys.exit(sides.finish(main))
