"""The file of an encoder's heads, heads.toml: rows of weights, biases and calibrations."""

import base64
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Heads:
    """Heads on an embedding."""

    encoder: str  # SHA-256 of the encoder's model file
    labels: list[str]
    weights: np.ndarray  # f32 (labels, size of the embedding)
    bias: np.ndarray  # f32 (labels,)
    calibration: dict[str, dict[str, float]] = field(default_factory=dict)  # by label

    def logits(self, embeddings: np.ndarray) -> np.ndarray:
        """Map embeddings f32 (N, size) to log-odds f64 (N, labels)."""
        return embeddings.astype(np.float64) @ self.weights.astype(np.float64).T + self.bias

    def calibrated(self, label: str, logits: np.ndarray) -> np.ndarray:
        """Return the log-odds of a label after its calibration."""
        found = self.calibration.get(label, {})
        return logits / found.get("temperature", 1.0) + found.get("shift", 0.0)


def read(path: Path) -> Heads:
    """Read a file of heads."""
    file = tomllib.loads(path.read_text())
    rows = np.frombuffer(base64.b64decode(file["weights"]), "<f4")
    return Heads(
        encoder=file["encoder"],
        labels=file["labels"],
        weights=rows.reshape(len(file["labels"]), -1),
        bias=np.array(file["bias"], np.float32),
        calibration=file.get("calibration", {}),
    )


def write(path: Path, heads: Heads) -> None:
    """Write a file of heads."""
    quoted = ", ".join(f'"{label}"' for label in heads.labels)
    lines = [
        "# Heads of the encoder whose model file has this SHA-256.",
        f'encoder = "{heads.encoder}"',
        f"labels = [{quoted}]",
        f'weights = "{base64.b64encode(heads.weights.astype("<f4").tobytes()).decode()}"',
        f"bias = [{', '.join(f'{float(b):.9g}' for b in heads.bias)}]",
    ]
    for label, values in heads.calibration.items():
        pairs = [f"{name} = {value}" for name, value in values.items()]
        lines += ["", f'[calibration."{label}"]', *pairs]
    path.write_text("\n".join(lines) + "\n")
