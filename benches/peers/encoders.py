"""Text classification by MiniLM through the sandbox, beside Python's onnxruntime behind uvicorn.

    python benches/peers/encoders.py
    python benches/peers/encoders.py --model f32 --also tei=http://127.0.0.1:8081

The same `model.onnx` (all-MiniLM-L6-v2 with a random head, int8 or f32) and `tokenizer.json` on all
sides, and texts of 20 to 200 words. `infer serve` answers POST /moderate from a fresh guest
instance per request; the peer answers POST /predict (encoders/server.py) with one process of two
threads, and with two processes of one. Each side is started for its turn, warmed up and loaded by
wrk with 1, 8 and 32 connections. `--also NAME=URL` adds a running server with POST /predict in the
form of text-embeddings-inference.

The script first checks that both return the same scores. Needs pip and wrk.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import sides

FOLDER = Path(__file__).with_name("encoders")
CONNECTIONS = [1, 8, 32]
TEXTS = 512
WORDS = (
    "the a my this our council garden market street bakery river bridge concert says wants takes closes paints forgets likes"
    " old green loud broken early small cheap famous near behind without after and because while again today never often slowly"
).split()
# Largest difference of a score, by precision: kernels of the peer may sum int8 products otherwise.
AGREEMENT = {"f32": 1e-4, "int8": 0.02}


def texts() -> list[str]:
    """Returns texts of 20 to 200 words, from a seed."""
    chosen = random.Random(1)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(20, 200))) for _ in range(TEXTS)]


def exported(python: Path) -> Path:
    """Returns the folder with the exports of the model; writes it first if it is missing."""
    folder = sides.TARGET / "peers" / "minilm"
    if not (folder / "int8" / "onnx" / "model.onnx").exists():
        subprocess.run([python, FOLDER / "export_minilm.py", folder], check=True, stdout=sys.stderr)
    return folder


@contextmanager
def infer_server(arguments: argparse.Namespace, weights: Path) -> Iterator[str]:
    """Runs `infer serve` with the model of the folder `weights`, and yields its URL."""
    port = sides.free_port()
    threads = min(arguments.infer_threads, sides.cores())
    capacity = f"threads = {threads}\nsessions = {sides.cores() // threads}\n" if threads else ""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "infer.toml"
        config.write_text(
            f'[models.text]\nsource = "{weights}"\n{capacity}[components.moderate]\nsource = "builtin:moderate"\n'
            'route = "/moderate"\nmodels = { text = "text" }\n'
        )
        command = [arguments.infer, "--config", config, "serve", "--listen", f"127.0.0.1:{port}", "--log", "warn"]
        with sides.server(command, port, "/readyz"):
            yield f"http://127.0.0.1:{port}"


@contextmanager
def uvicorn_server(python: Path, export: Path, workers: int) -> Iterator[str]:
    """Runs the peer with `workers` processes that share the processors, and yields its URL."""
    port, threads = sides.free_port(), max(1, sides.cores() // workers)
    # An environment of its own: the program inherits this process's.
    os.environ |= {"MODEL": str(export), "THREADS": str(threads)}
    command = [python, "-m", "uvicorn", "--app-dir", FOLDER, "server:app", "--workers", workers]
    command += ["--port", port, "--log-level", "warning", "--no-access-log"]
    with sides.server(command, port, "/readyz"):
        yield f"http://127.0.0.1:{port}"


def load(url: str, bodies: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Loads a URL with each number of connections. Raises ValueError if a request fails."""
    figures = {}
    for connections in CONNECTIONS:
        for seconds in (1, arguments.seconds):
            wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", FOLDER / "requests.lua"]
            measured = json.loads(sides.output_of([*wrk, url, "--", bodies]).splitlines()[-1])
        if measured["failed"]:
            raise ValueError(f"{measured['failed']} requests to `{url}` failed")
        figures |= {f"c={connections}, requests/s": measured["rate"], f"c={connections}, p99 ms": measured["p99"]}
    return figures


def compare(ours: str, theirs: str, model: str) -> None:
    """Compares the scores of both for some texts. Raises ValueError if they differ."""
    mine, other = (sides.Client(urlsplit(url).port) for url in (ours, theirs))
    largest = 0.0
    for text in texts()[:20]:
        body = {"inputs": [{"name": "texts", "shape": [1], "datatype": "BYTES", "data": [text]}]}
        outputs = mine.post("/v2/models/text/infer", json.dumps(body).encode())["outputs"]
        scores = next(output["data"] for output in outputs if output["name"] == "scores")
        answer = other.post("/predict", json.dumps({"inputs": text}).encode())
        largest = max([largest, *(abs(a - b["score"]) for a, b in zip(sorted(scores, reverse=True), answer))])
    if largest > AGREEMENT[model]:
        raise ValueError(f"scores differ by {largest:.4f}, expected at most {AGREEMENT[model]}")
    print(f"{model}: scores of 20 texts differ by at most {largest:.2g}", file=sys.stderr)


def main() -> list[dict]:
    """Measures all sides on each model."""
    parser = sides.parser(__doc__, 5)
    parser.add_argument("--model", choices=AGREEMENT, nargs="+", default=["int8", "f32"], help="(default: both)")
    parser.add_argument("--seconds", type=int, default=6, help="duration of each measurement (default: %(default)s)")
    parser.add_argument("--also", metavar="NAME=URL", action="append", default=[], help="another server with POST /predict")
    parser.add_argument("--infer-threads", type=int, default=0, help="threads per session of infer (default: its own default)")
    arguments = parser.parse_args()
    versions = {"infer": sides.version_of(arguments.infer)}
    if not shutil.which("wrk"):
        raise sides.Skip("`wrk` is missing; install it: apt-get install wrk")
    python = sides.environment("encoders", FOLDER / "requirements.txt")
    exports = exported(python)
    comparisons = []
    for model in arguments.model:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            sides.output_of([arguments.infer, "import", exports / model, "-o", folder / "weights"])
            for key, member in (("ours", "input"), ("theirs", "inputs")):
                lines = (json.dumps({member: text}) for text in texts())
                (folder / key).write_text("\n".join(lines) + "\n")
            with infer_server(arguments, folder / "weights") as ours, uvicorn_server(python, exports / model, 1) as theirs:
                compare(ours, theirs, model)

            def infer_turn(_: int) -> dict[str, float]:
                with infer_server(arguments, folder / "weights") as url:
                    return load(f"{url}/moderate", folder / "ours", arguments)

            def uvicorn_turn(workers: int) -> dict[str, float]:
                with uvicorn_server(python, exports / model, workers) as url:
                    return load(f"{url}/predict", folder / "theirs", arguments)

            turns = {"infer, sandboxed": infer_turn}
            turns |= {f"uvicorn, {n} processes": lambda _, n=n: uvicorn_turn(n) for n in {1, sides.cores()}}
            for named in arguments.also:
                name, _, url = named.partition("=")
                turns[name] = lambda _, url=url: load(f"{url}/predict", folder / "theirs", arguments)
            costs = tuple(f"c={connections}, p99 ms" for connections in CONNECTIONS)
            comparison = sides.Comparison(f"MiniLM {model}, texts of 20 to 200 words", "infer, sandboxed", costs)
            comparisons.append(sides.interleave(comparison, turns, arguments.rounds))
    return sides.show(comparisons, arguments.output, versions)


if __name__ == "__main__":
    sys.exit(sides.finish(main))
