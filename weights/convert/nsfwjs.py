"""Build weights/nsfwjs-mobilenet_v2-int8 from the npm package nsfwjs.

The package has a Keras MobileNetV2 for TensorFlow.js: its layers as a JavaScript literal, its
weights as base64 of u8 values with a scale and a minimum for each tensor. Both are read as text; no
JavaScript runs. The graph is the model's layer list, converted from NHWC to NCHW.

    python nsfwjs.py --out /tmp/nsfwjs-mobilenet_v2-int8
"""

import base64
import json
import re
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto

import fetch
import quantise
from graph import Graph, same_padding

FOLDER = "package/dist/models/mobilenet_v2/"
LABELS = ["Drawing", "Hentai", "Neutral", "Porn", "Sexy"]
PIXELS = quantise.Pixels(crop=1.0, mean=0.0, std=255.0)

# The differences between a minified JavaScript literal and JSON. Strings come first, so that their
# contents stay unchanged.
LITERAL = re.compile(
    r'(?P<string>"[^"\\]*")|(?P<key>[A-Za-z_]\w*)(?=:)|(?P<bool>![01])|(?P<point>(?<![\d])\.(?=\d))'
)


def exported(script: str) -> str:
    """Return the literal that a browserify bundle of one module assigns to its `exports`."""
    match = re.search(
        r"\{1:\[function\(\w,\w,\w\)\{\w\.exports=(.+)\},\{\}\]\},\{\},\[1\]\)\(1\)\}\);?\s*$",
        script,
        re.DOTALL,
    )
    if not match:
        raise ValueError("expected a bundle of one module that exports a literal")
    return match[1]


def to_json(literal: str) -> str:
    """Convert a minified JavaScript literal to JSON.

    Quotes keys, writes `!0` and `!1` as `true` and `false`, and `.5` as `0.5`.
    """

    def replacement(match: re.Match) -> str:
        text = match[0]
        if match["key"]:
            return f'"{text}"'
        if match["bool"]:
            return "true" if text == "!0" else "false"
        return "0." if match["point"] else text

    return LITERAL.sub(replacement, literal)


def read_tensors(manifest: list, blob: bytes) -> dict[str, np.ndarray]:
    """Return the weights by name as f32, from TensorFlow.js's manifest and its bytes."""
    tensors = {}
    offset = 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        coding = entry["quantization"]
        dtype = np.dtype(coding["dtype"])
        count = int(np.prod(entry["shape"]))
        values = (
            np.frombuffer(blob, dtype, count, offset).astype(np.float64) * coding["scale"] + coding["min"]
        )
        tensors[entry["name"]] = values.astype(np.float32).reshape(entry["shape"])
        offset += count * dtype.itemsize
    if offset != len(blob):
        raise ValueError(f"expected {offset} bytes of weights, found {len(blob)}")
    return tensors


class Network:
    """The graph under construction.

    Each class of Keras layer has a method that returns the value's name and shape. `values` has the
    name of each layer's output in the graph, and `shapes` its shape without the batch axis: (C, H,
    W) or (C,).
    """

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.graph = Graph("nsfwjs", "conv_nsfwjs")
        self.values = {}
        self.shapes = {}
        self.translations = {
            "InputLayer": self._input,
            "ZeroPadding2D": self._zero_padding,
            "Conv2D": self._convolution,
            "DepthwiseConv2D": self._depthwise_convolution,
            "BatchNormalization": self._batch_norm,
            "ReLU": self._relu6,
            "Add": self._add,
            "AveragePooling2D": self._average_pooling,
            "Flatten": self._flatten,
            "Dropout": self._dropout,
            "Dense": self._dense,
        }

    def add(self, layer: dict) -> None:
        """Translate one layer of the Keras configuration."""
        name, kind = layer["name"], layer["class_name"]
        if kind not in self.translations:
            raise ValueError(f"layer `{name}`: no translation for the class `{kind}`")
        sources = [inbound[0] for inbound in layer["inbound_nodes"][0]] if layer["inbound_nodes"] else []
        self.values[name], self.shapes[name] = self.translations[kind](name, layer["config"], sources)

    def _input(self, _name, config, _sources):
        side = config["batch_input_shape"][1]
        return "input", (3, side, side)

    def _zero_padding(self, name, config, sources):
        channels, height, width = self.shapes[sources[0]]
        (top, bottom), (left, right) = config["padding"]
        pads = self.graph.constant(f"{name}_p", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
        value = self.graph.node("Pad", [self.values[sources[0]], pads], name)
        return value, (channels, height + top + bottom, width + left + right)

    def _convolution(self, name, config, sources):
        kernel = self.tensors[f"{name}/kernel"].transpose(3, 2, 0, 1)
        return self._convolve(name, config, sources[0], kernel, groups=1)

    def _depthwise_convolution(self, name, config, sources):
        kernel = self.tensors[f"{name}/depthwise_kernel"].transpose(2, 3, 0, 1)
        return self._convolve(name, config, sources[0], kernel, groups=kernel.shape[0])

    def _convolve(self, name, config, source, kernel, groups):
        pads, height, width = self._window(config, self.shapes[source], config["kernel_size"])
        value = self.graph.node(
            "Conv",
            [self.values[source], self.graph.constant(f"{name}.w", kernel)],
            name,
            kernel_shape=config["kernel_size"],
            strides=config["strides"],
            pads=pads,
            group=groups,
        )
        return value, (kernel.shape[0], height, width)

    def _batch_norm(self, name, config, sources):
        parts = {"g": "gamma", "be": "beta", "m": "moving_mean", "v": "moving_variance"}
        constants = [
            self.graph.constant(f"{name}.{short}", self.tensors[f"{name}/{part}"])
            for short, part in parts.items()
        ]
        value = self.graph.node(
            "BatchNormalization", [self.values[sources[0]], *constants], name, epsilon=config["epsilon"]
        )
        return value, self.shapes[sources[0]]

    def _relu6(self, name, config, sources):
        if config["max_value"] != 6:
            raise ValueError(f"layer `{name}`: expected a maximum of 6, found {config['max_value']}")
        return self.graph.node("Clip", [self.values[sources[0]], "c0", "c6"], name), self.shapes[sources[0]]

    def _add(self, name, _config, sources):
        return (
            self.graph.node("Add", [self.values[source] for source in sources], name),
            self.shapes[sources[0]],
        )

    def _average_pooling(self, name, config, sources):
        pads, height, width = self._window(config, self.shapes[sources[0]], config["pool_size"])
        value = self.graph.node(
            "AveragePool",
            [self.values[sources[0]]],
            name,
            kernel_shape=config["pool_size"],
            strides=config["strides"],
            pads=pads,
        )
        return value, (self.shapes[sources[0]][0], height, width)

    def _flatten(self, name, _config, sources):
        # Keras flattens NHWC, so the channels must be innermost.
        inner = self.graph.node("Transpose", [self.values[sources[0]]], f"{name}_t", perm=[0, 2, 3, 1])
        return self.graph.node("Flatten", [inner], name), (int(np.prod(self.shapes[sources[0]])),)

    def _dropout(self, _name, _config, sources):
        return self.values[sources[0]], self.shapes[sources[0]]

    def _dense(self, name, config, sources):
        weight = self.graph.constant(f"{name}.w", self.tensors[f"{name}/kernel"])
        bias = self.graph.constant(f"{name}.b", self.tensors[f"{name}/bias"])
        value = self.graph.node("Gemm", [self.values[sources[0]], weight, bias], name)
        if config["activation"] == "relu":
            value = self.graph.node("Relu", [value], f"{name}_a")
        else:
            value = self.graph.node("Softmax", [value], "probs", axis=1)
        return value, (config["units"],)

    @staticmethod
    def _window(config, shape, kernel):
        """Return ONNX's padding of a sliding window, and the output's height and width."""
        _, height, width = shape
        strides = config["strides"]
        if config["padding"] == "valid":
            return [0] * 4, (height - kernel[0]) // strides[0] + 1, (width - kernel[1]) // strides[1] + 1
        top, bottom, height = same_padding(height, kernel[0], strides[0])
        left, right, width = same_padding(width, kernel[1], strides[1])
        return [top, left, bottom, right], height, width


def write_f32_model(description: dict, blob: bytes, path: Path) -> None:
    """Write the network in f32: `input` (N, 3, 224, 224) to `probs` (N, 5)."""
    network = Network(read_tensors(description["weightsManifest"], blob))
    layers = description["modelTopology"]["model_config"]["config"]["layers"]
    for layer in layers:
        network.add(layer)
    network.graph.scalar("c0", 0)
    network.graph.scalar("c6", 6)
    network.graph.save(
        path,
        [("input", TensorProto.FLOAT, ["N", *network.shapes[layers[0]["name"]]])],
        [("probs", TensorProto.FLOAT, ["N", len(LABELS)])],
    )


def build(cache: Path, out: Path) -> None:
    """Write model.onnx and labels.txt into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    package = fetch.fetch("nsfwjs", cache)
    description = json.loads(to_json(exported(fetch.read_member(package, f"{FOLDER}model.min.js").decode())))
    shard = fetch.read_member(package, f"{FOLDER}group1-shard1of1.min.js").decode()
    blob = base64.b64decode(json.loads(exported(shard)), validate=True)
    with tempfile.TemporaryDirectory() as folder:
        f32_model = Path(folder) / "f32.onnx"
        write_f32_model(description, blob, f32_model)
        quantise.quantise(f32_model, out / "model.onnx", "input", PIXELS, cache)
    (out / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")


if __name__ == "__main__":
    arguments = fetch.converter_arguments(__doc__)
    build(arguments.cache, arguments.out)
