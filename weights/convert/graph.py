"""Write an ONNX graph node by node."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 13  # the first with per-channel QuantizeLinear
IR_VERSION = 8


class Graph:
    """Nodes and constants in the order of their addition; nodes refer to values by name."""

    def __init__(self, name: str, producer: str) -> None:
        self.name = name
        self.producer = producer
        self.nodes = []
        self.constants = []

    def constant(self, name: str, values: np.ndarray) -> str:
        """Add a constant and return its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def scalar(self, name: str, value: float) -> str:
        """Add an f32 constant of rank 0 and return its name."""
        self.constants.append(numpy_helper.from_array(np.float32(value).reshape(()), name))
        return name

    def node(self, operator: str, inputs: list[str], output: str, **attributes) -> str:
        """Add a node with one output and return the output's name."""
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def save(self, path: Path, inputs: list, outputs: list) -> None:
        """Check the model and write it.

        `inputs` and `outputs` are triples (name, ONNX element type, shape).
        """
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(*value) for value in inputs],
            [helper.make_tensor_value_info(*value) for value in outputs],
            self.constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=self.producer,
        )
        onnx.checker.check_model(model)
        onnx.save(model, path)


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Return TensorFlow's `same` padding on one axis: (before, after, output size).

    If the total is odd, the extra pixel is after.
    """
    output = -(-size // stride)
    total = max((output - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, output
