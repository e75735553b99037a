"""Write the trained encoder as ONNX in f32 and int8, and its heads.

    python export.py --encoder MINILM_DIR --weights trained.safetensors --out OUT_DIR

OUT_DIR gets model-f32.onnx, model.onnx (int8), heads.toml and tokenizer.json. Graph, opset 17:
input_ids, attention_mask i64 (N, L) -> embedding f32 (N, 384), the mean of the last hidden states
over the mask, L2-normalised; L <= 512. The graph has no control flow, and no shape arithmetic
except one Shape node. int8 is dynamic: activations are quantised for each product
(DynamicQuantizeLinear, MatMulInteger). heads.toml has a row of f32 for each head, and no
calibration, which evaluate.py adds. Needs: numpy, onnx, onnxruntime, safetensors.
"""

import argparse
import hashlib
import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

import heads
from data import HEADS, TAUGHT

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from quantise_text import dynamic

WORDS = "embeddings.word_embeddings.weight"
POSITIONS = 512
# Heads that are left out: toxic-bilstm, which teaches `threat`, knows few threats.
LEFT_OUT = {"threat"}


class Graph:
    """Nodes and constants in the order of their addition; constants of one name are stored once."""

    def __init__(self) -> None:
        self.nodes, self.constants, self.names = [], [], set()

    def constant(self, name: str, values, dtype=None) -> str:
        if name not in self.names:
            self.names.add(name)
            self.constants.append(
                numpy_helper.from_array(np.ascontiguousarray(np.asarray(values, dtype)), name)
            )
        return name

    def node(
        self, operator: str, inputs: list[str], output: str | None = None, **attributes
    ) -> str:
        output = output or f"{operator}_{len(self.nodes)}"
        # A node with a weight has its name, so that a quantiser can select it.
        weight = next((i for i in inputs if i.endswith(".weight")), None)
        name = f"{weight}/{operator}" if weight else output
        self.nodes.append(helper.make_node(operator, inputs, [output], name=name, **attributes))
        return output


def build(weights: dict[str, np.ndarray], config: dict, out: Path) -> None:
    """Write the BERT graph, f32. The weights decide the number of layers."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    per_head, epsilon = hidden // heads, config["layer_norm_eps"]
    g = Graph()

    def weight(name: str, transposed: bool = False) -> str:
        w = weights[name].astype(np.float32)
        return g.constant(name, w.T if transposed else w)

    def linear(x: str, name: str) -> str:
        return g.node(
            "Add", [g.node("MatMul", [x, weight(name + ".weight", True)]), weight(name + ".bias")]
        )

    def layer_norm(x: str, name: str) -> str:
        # onnxruntime computes LayerNormalization one value at a time. With means as products, a
        # text of 40 words takes a sixth less time.
        average = g.constant("average", np.full((hidden, 1), 1 / hidden), np.float32)
        x = g.node("Sub", [x, g.node("MatMul", [x, average])])
        variance = g.node("MatMul", [g.node("Mul", [x, x]), average])
        variance = g.node("Add", [variance, g.constant("epsilon", epsilon, np.float32)])
        x = g.node("Mul", [x, g.node("Reciprocal", [g.node("Sqrt", [variance])])])
        return g.node("Add", [g.node("Mul", [x, weight(name + ".weight")]), weight(name + ".bias")])

    # A text is one segment: its token type's row is added to the positions.
    positions = weights["embeddings.position_embeddings.weight"][:POSITIONS].astype(np.float32)
    positions = positions + weights["embeddings.token_type_embeddings.weight"][0].astype(np.float32)
    length = g.node("Shape", ["input_ids"], start=1, end=2)
    zero, axis0 = g.constant("zero", [0], np.int64), g.constant("axis0", [0], np.int64)
    position = g.node("Slice", [g.constant("positions", positions), zero, length, axis0])
    words = g.node("Gather", [weight(WORDS), "input_ids"])
    x = layer_norm(g.node("Add", [words, position]), "embeddings.LayerNorm")

    mask = g.node("Cast", ["attention_mask"], to=TensorProto.FLOAT)
    one = g.constant("one", 1, np.float32)
    wide = g.node("Unsqueeze", [mask, g.constant("axes12", [1, 2], np.int64)])
    bias = g.node("Mul", [g.node("Sub", [one, wide]), g.constant("minus_1e9", -1e9, np.float32)])

    split = g.constant("split_heads", [0, 0, heads, per_head], np.int64)
    join = g.constant("join_heads", [0, 0, hidden], np.int64)
    scale = g.constant("scale", 1 / math.sqrt(per_head), np.float32)
    half, root2 = g.constant("half", 0.5, np.float32), g.constant("root2", 2**0.5, np.float32)
    depth = sum(name.endswith("intermediate.dense.weight") for name in weights)
    for p in (f"encoder.layer.{layer}." for layer in range(depth)):
        names = [p + "attention.self." + part for part in ("query", "key", "value")]
        q, k, v = (g.node("Reshape", [linear(x, name), split]) for name in names)
        q = g.node("Transpose", [q], perm=[0, 2, 1, 3])
        k = g.node("Transpose", [k], perm=[0, 2, 3, 1])
        v = g.node("Transpose", [v], perm=[0, 2, 1, 3])
        scores = g.node("Add", [g.node("Mul", [g.node("MatMul", [q, k]), scale]), bias])
        mixed = g.node("MatMul", [g.node("Softmax", [scores], axis=-1), v])
        mixed = g.node("Reshape", [g.node("Transpose", [mixed], perm=[0, 2, 1, 3]), join])
        x = layer_norm(
            g.node("Add", [x, linear(mixed, p + "attention.output.dense")]),
            p + "attention.output.LayerNorm",
        )
        up = linear(x, p + "intermediate.dense")
        # In the form that onnxruntime recognises as GELU.
        erf = g.node("Add", [g.node("Erf", [g.node("Div", [up, root2])]), one])
        gelu = g.node("Mul", [g.node("Mul", [up, erf]), half])
        x = layer_norm(g.node("Add", [x, linear(gelu, p + "output.dense")]), p + "output.LayerNorm")

    axis1 = g.constant("axis1", [1], np.int64)
    masked = g.node("Mul", [x, g.node("Unsqueeze", [mask, g.constant("axis2", [2], np.int64)])])
    total = g.node("ReduceSum", [masked, axis1], keepdims=0)
    mean = g.node("Div", [total, g.node("ReduceSum", [mask, axis1], keepdims=1)])
    g.node("Div", [mean, g.node("ReduceL2", [mean], axes=[1], keepdims=1)], "embedding")
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["N", "L"])
        for n in ("input_ids", "attention_mask")
    ]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", hidden])]
    graph = helper.make_graph(g.nodes, "moderation_encoder", inputs, outputs, g.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, out)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoder", type=Path, required=True, help="folder of the pretrained encoder"
    )
    parser.add_argument(
        "--weights", type=Path, required=True, help="what train.py or soup.py wrote"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    weights = load_file(str(arguments.weights))
    if WORDS not in weights:
        weights[WORDS] = load_file(str(arguments.encoder / "model.safetensors"))[WORDS]
    weights = {name: tensor.astype(np.float16) for name, tensor in weights.items()}
    shutil.copyfile(arguments.encoder / "tokenizer.json", arguments.out / "tokenizer.json")
    f32, int8 = arguments.out / "model-f32.onnx", arguments.out / "model.onnx"
    build(weights, json.loads((arguments.encoder / "config.json").read_text()), f32)
    dynamic(f32, int8)
    labels = (HEADS + TAUGHT)[: len(weights["head.bias"])]
    rows = [i for i, label in enumerate(labels) if label not in LEFT_OUT]
    heads.write(
        arguments.out / "heads.toml",
        heads.Heads(
            encoder=hashlib.sha256(int8.read_bytes()).hexdigest(),
            labels=[labels[i] for i in rows],
            weights=weights["head.weight"][rows].astype(np.float32),
            bias=weights["head.bias"][rows].astype(np.float32),
        ),
    )
    for path in (f32, int8):
        print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
