#!/usr/bin/env python3
"""Write the small models of the engine's tests, each with its card in a folder of its own.

Requires onnx; version 1.23.2 wrote the files in the repository. Run it in this folder. Its output
is reproducible.

identity-DTYPE   y = x, (N, 3), for each element type of wasi:nn
fixed-batch      y = x, (1, 3), f32: a model that cannot be batched
rows             total = sum of a - b over the last axis, (N, K) each, f32; wide = the ids, (N),
                 i64: two inputs in another order than in the card, a second varying axis, two
                 outputs
lookup           y = row of a table of four rows, (N), i64 to (N, 2), f32: fails on an id outside
                 -4..3
"""

import hashlib
import pathlib

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = pathlib.Path(__file__).parent
TYPES = {
    "f16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "f32": TensorProto.FLOAT,
    "f64": TensorProto.DOUBLE,
    "u8": TensorProto.UINT8,
    "i32": TensorProto.INT32,
    "i64": TensorProto.INT64,
}


def write(name, nodes, inputs, outputs, initializers=(), card_inputs=None):
    """Write a model. Inputs and outputs are (name, dtype, shape); `card_inputs` reorders the inputs
    of the card. An axis is a size, a name, or (name, maximum in the card)."""

    def info(tensor):
        axes = [axis[0] if isinstance(axis, tuple) else axis for axis in tensor[2]]
        return helper.make_tensor_value_info(tensor[0], TYPES[tensor[1]], axes)

    graph = helper.make_graph(
        nodes, name, [info(i) for i in inputs], [info(o) for o in outputs], list(initializers)
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString(deterministic=True)
    folder = FOLDER / name
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(data)

    def table(kind, tensor):
        def axis(size):
            if isinstance(size, tuple):
                return f'{{ name = "{size[0]}", max = {size[1]} }}'
            return f'"{size}"' if isinstance(size, str) else str(size)

        shape = ", ".join(map(axis, tensor[2]))
        return f'\n[[{kind}]]\nname = "{tensor[0]}"\ndtype = "{tensor[1]}"\nshape = [{shape}]\n'

    batches = all(tensor[2][:1] == ["N"] for tensor in [*inputs, *outputs])
    batch = "batch_axis = 0\n" if batches else ""
    card = f"""name = "{name}"
task = "text-classification"
format = "onnx"
description = "A model of the engine's tests"
license = "Apache-2.0"
source = "host/engine/tests/data/make_models.py"
{batch}
[[files]]
path = "model.onnx"
role = "model"
bytes = {len(data)}
sha256 = "{hashlib.sha256(data).hexdigest()}"
"""
    card += "".join(table("inputs", i) for i in card_inputs or inputs)
    card += "".join(table("outputs", o) for o in outputs)
    (folder / "card.toml").write_text(card)


def main():
    identity = [helper.make_node("Identity", ["x"], ["y"])]
    for dtype in TYPES:
        write(f"identity-{dtype}", identity, [("x", dtype, ["N", 3])], [("y", dtype, ["N", 3])])
    write("fixed-batch", identity, [("x", "f32", [1, 3])], [("y", "f32", [1, 3])])

    row = ["N", ("K", 100_000)]
    a, b, ids = ("a", "f32", row), ("b", "f32", row), ("ids", "i64", ["N"])
    axes = numpy_helper.from_array(numpy.array([1], dtype=numpy.int64), "axes")
    write(
        "rows",
        [
            helper.make_node("Sub", ["a", "b"], ["difference"]),
            helper.make_node("ReduceSum", ["difference", "axes"], ["total"], keepdims=0),
            helper.make_node("Identity", ["ids"], ["wide"]),
        ],
        [a, b, ids],
        [("total", "f32", ["N"]), ("wide", "i64", ["N"])],
        [axes],
        card_inputs=[ids, b, a],
    )

    rows = numpy_helper.from_array(numpy.arange(8, dtype=numpy.float32).reshape(4, 2), "table")
    write(
        "lookup",
        [helper.make_node("Gather", ["table", "id"], ["y"])],
        [("id", "i64", ["N"])],
        [("y", "f32", ["N", 2])],
        [rows],
    )


if __name__ == "__main__":
    main()
