"""The classifiers of `infer`, and a check that a peer returns the same outputs."""

import json
import math
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sides

MODELS = {
    "efficientnet-lite0": "efficientnet-lite0-int8", "nsfw-mobilenet": "nsfwjs-mobilenet_v2-int8", "toxic-bilstm": "toxic-bilstm",
}  # fmt: skip

# Maximum difference of an output: `infer` sets precise int8 products, while onnxruntime's default
# saturates on processors without VNNI (tests/scripts/golden.py).
AGREEMENT = 0.02


@contextmanager
def configured(model: str, threads: int, sessions: int) -> Iterator[list[object]]:
    """Yields arguments for `infer` that set the sessions of a model and their threads."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "infer.toml"
        config.write_text(f'[models.{model}]\nsource = "builtin:{MODELS[model]}"\nthreads = {threads}\nsessions = {sessions}\n')
        yield ["--config", config]


def input_of(model: str) -> str:
    """Returns the name of the first input of a model."""
    card = tomllib.loads((sides.ROOT / "weights" / MODELS[model] / "card.toml").read_text(encoding="utf-8"))
    return card["inputs"][0]["name"]


def made(count: int, whole: bool) -> list[float]:
    """Returns the values of the tensor of `infer bench`: host/bench/src/sample.rs."""
    return [index * 7919 % 256 if whole else (index * 7919 % 256 - 127) / 128 for index in range(count)]


def agree(infer: Path, config: list[object], model: str, theirs: list[float]) -> None:
    """Compares both outputs for the same tensor. Raises ValueError if they differ."""
    port = sides.free_port()
    with sides.server([infer, "serve", *config, "--listen", f"127.0.0.1:{port}", "--log", "warn"], port, "/readyz"):
        client = sides.Client(port)
        inputs = []
        for one in client.get(f"/v2/models/{model}")["inputs"]:
            shape = [max(axis, 1) for axis in one["shape"]]
            data = made(math.prod(shape), one["datatype"] == "INT32")
            inputs.append({"name": one["name"], "datatype": one["datatype"], "shape": shape, "data": data})
        answer = client.post(f"/v2/models/{model}/infer", json.dumps({"inputs": inputs}).encode())
        ours = answer["outputs"][0]["data"]
    if len(ours) != len(theirs):
        raise ValueError(f"`{model}` has {len(ours)} outputs in `infer`, and {len(theirs)} in the peer")
    largest = max(abs(a - b) for a, b in zip(ours, theirs))
    if largest > AGREEMENT:
        raise ValueError(f"outputs of `{model}` differ by {largest:.4f}, expected at most {AGREEMENT}")
    print(f"{model}: {len(ours)} outputs differ by at most {largest:.2g}", file=sys.stderr)
