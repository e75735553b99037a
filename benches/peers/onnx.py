"""The classifiers of `infer` beside Python's onnxruntime of the same version.

    python benches/peers/onnx.py
    python benches/peers/onnx.py --models toxic-bilstm --seconds 2 --rounds 9

Two tables, with the sides in alternating rounds. Tensors: the same tensor through a session of 1
and of 2 threads, one request at a time: `infer bench --task tensor`, natively and through the
sandbox, against a loop around `InferenceSession.run`. Photos: from the bytes of a JPEG to a label,
on all cores: `infer serve` and POST /classify, loaded by wrk, against Pillow (which decodes no more
than the model needs, by `draft`), numpy and onnxruntime in as many threads of one Python process,
without HTTP. The photos are coffee.jpg, 600 × 400, and the same enlarged to 4000 × 3000, baseline
and progressive; with `--formats` also as PNG and WebP.

The script first checks that both return the same outputs (by POST /v2/models/NAME/infer) and
labels.
"""

import argparse
import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import classifiers
import sides

REQUIREMENTS = sides.ROOT / "tests" / "scripts" / "requirements.txt"
PHOTO = sides.ROOT / "tests" / "data" / "photos" / "coffee.jpg"
LABELLED = "efficientnet-lite0"
THREADS = [1, 2]
WORKER = Path(__file__).with_name("onnx_worker.py")
PHOTO_LUA = Path(__file__).with_name("photo.lua")
SIZE = 600, 400
LARGE = 4000, 3000
# Format, size, and options of Pillow's encoder.
PHOTOS = [
    ("JPEG", LARGE, {"quality": 90, "subsampling": "4:2:0"}),
    ("JPEG", LARGE, {"quality": 90, "subsampling": "4:2:0", "progressive": True}),
]
OTHER_FORMATS = [("PNG", SIZE, {}), ("WEBP", SIZE, {"quality": 80})]


def tensors(model: str, python: Path, arguments: argparse.Namespace) -> sides.Comparison:
    """Measures one model on one and two threads."""
    with ExitStack() as stack:
        workers = {
            threads: stack.enter_context(sides.CommandProcess([python, WORKER, classifiers.MODELS[model], threads, PHOTO])) for threads in THREADS
        }
        configs = {threads: stack.enter_context(classifiers.configured(model, threads, 1)) for threads in THREADS}
        classifiers.agree(arguments.infer, configs[1], model, workers[1].ask("answer"))

        def infer_turn(_: int) -> dict[str, float]:
            figures = {}
            for threads in THREADS:
                report = sides.bench(
                    arguments.infer, *configs[threads], "--model", model, "--task", "tensor", "-c", 1, "-r", 1,
                    "-z", f"{arguments.seconds}s",
                )  # fmt: skip
                rates = {row["path"]: row["inferences_per_second"] for row in report["rows"]}
                found = report["model"]
                if (found["threads"], found["backend"]) != (threads, "onnxruntime"):
                    raise ValueError(f"`infer` ran on {found['threads']} threads of {found['backend']}: run `make onnxruntime`")
                figures |= {f"{path}, {named(threads)}": rates[path] for path in ("native", "sandbox")}
                figures[f"sandbox / native, {named(threads)}"] = rates["sandbox"] / rates["native"]
            return figures

        def python_turn(_: int) -> dict[str, float]:
            rates = {threads: workers[threads].ask(f"tensor {arguments.seconds}") for threads in THREADS}
            return {f"{path}, {named(threads)}": rates[threads] for threads in THREADS for path in ("native", "sandbox")}

        turns = {"infer": infer_turn, "onnxruntime in Python": python_turn}
        return sides.interleave(sides.Comparison(f"{model}, inferences/s", "infer"), turns, arguments.rounds)


def named(threads: int) -> str:
    """Formats a number of threads."""
    return f"{threads} thread{'s' * (threads > 1)}"


def photos(python: Path, arguments: argparse.Namespace) -> list[sides.Comparison]:
    """Measures the path from a photo to a label, for each kind of photo."""
    if not shutil.which("wrk"):
        raise sides.Skip("`wrk` is missing; install it: apt-get install wrk")
    made = PHOTOS + OTHER_FORMATS * arguments.formats
    with tempfile.TemporaryDirectory() as folder:
        files = {PHOTO.name: PHOTO}
        with sides.CommandProcess([python, WORKER, classifiers.MODELS[LABELLED], 1, PHOTO]) as worker:
            for number, (kind, (width, height), options) in enumerate(made):
                file = Path(folder) / f"{number}.{kind.lower()}"
                worker.ask("write " + json.dumps({"path": str(file), "size": [width, height], "format": kind, "options": options}))
                files[f"{kind} {width}x{height}{' progressive' * ('progressive' in options)}"] = file
        return [photo(python, name, file, arguments) for name, file in files.items()]


def photo(python: Path, name: str, file: Path, arguments: argparse.Namespace) -> sides.Comparison:
    """Measures the path from a photo to a label, on all cores."""
    port = sides.free_port()
    cores = sides.cores()
    serving = [arguments.infer, "serve", "--config", sides.ROOT / "host/config/src/default.toml"]
    serving += ["--listen", f"127.0.0.1:{port}", "--log", "warn"]
    url = f"http://127.0.0.1:{port}/classify"
    with sides.CommandProcess([python, WORKER, classifiers.MODELS[LABELLED], 1, file]) as worker:
        with sides.server(serving, port, "/readyz"):
            ours = sides.Client(port).post("/classify", file.read_bytes(), "image/jpeg")["labels"][0]["label"]
        theirs = worker.ask("label")
        if ours != theirs:
            raise ValueError(f"`{name}` is `{ours}` to `infer`, and `{theirs}` to Pillow and onnxruntime")
        loads = [cores, 4 * cores]

        def infer_turn(_: int) -> dict[str, float]:
            figures = {}
            with sides.server(serving, port, "/readyz"):
                for load in loads:
                    wrk = ["wrk", "-t1", f"-c{load}", "--timeout", "30s", "-s", PHOTO_LUA, url]
                    for seconds in (1, round(arguments.seconds)):
                        report = sides.output_of([*wrk, f"-d{seconds}s", "--", file])
                    measured = json.loads(report.splitlines()[-1])
                    if measured["failed"]:
                        raise ValueError(f"{measured['failed']} requests to /classify failed")
                    figures[f"{load} at once"] = measured["rate"]
            return figures

        def python_turn(_: int) -> dict[str, float]:
            rate = worker.ask(f"photo {cores} {arguments.seconds}")
            return {f"{load} at once": rate for load in loads}

        turns = {"infer": infer_turn, f"Pillow and onnxruntime in Python, {named(cores)}, no HTTP": python_turn}
        title = f"{name} to a label ({ours}), over HTTP, photos/s"
        return sides.interleave(sides.Comparison(title, "infer"), turns, arguments.rounds)


def main() -> list[dict]:
    """Measures both sides on each model, and on a photo."""
    parser = sides.parser(__doc__, 7)
    parser.add_argument("--models", nargs="+", choices=classifiers.MODELS, default=list(classifiers.MODELS), help="(default: all)")
    parser.add_argument("--seconds", type=float, default=4, help="duration of each measurement (default: %(default)s)")
    parser.add_argument("--no-photos", action="store_true", help="skip the photos over HTTP")
    parser.add_argument("--formats", action="store_true", help="measure a photo as PNG and as WebP too")
    arguments = parser.parse_args()
    versions = {"infer": sides.version_of(arguments.infer)}
    python = sides.environment("onnx", REQUIREMENTS)
    version = sides.output_of([python, "-c", "import onnxruntime; print(onnxruntime.__version__)"]).strip()
    comparisons = [tensors(model, python, arguments) for model in arguments.models]
    if not arguments.no_photos:
        comparisons += photos(python, arguments)
    return sides.show(comparisons, arguments.output, versions | {"onnxruntime": version})


if __name__ == "__main__":
    sys.exit(sides.finish(main))
