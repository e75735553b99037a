"""Write small BERT and MPNet encoders with random weights, and their embeddings by PyTorch.

    python tests/scripts/small_encoders.py

Writes tests/data/encoders: bert.safetensors (F32), mpnet.safetensors (F16, names with the prefix
`mpnet.`), and golden.json with the token ids of some texts and the embedding of each. The weights
are from a fixed generator, so every run writes the same bytes. The embeddings are those of
weights/convert/moderation_encoder/model.py in f32; the server's are of int8 weights. Needs
weights/convert/moderation_encoder/requirements.txt.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "weights/convert/moderation_encoder"))
from model import Encoder  # noqa: E402

OUT = ROOT / "tests/data/encoders"
HIDDEN, INNER, HEADS, LAYERS, WORDS, TOKENS = 16, 32, 4, 2, 32, 72
EPSILON = 1e-5

# Texts of different lengths; the last is longer than MPNet's exact distances.
TEXTS = [
    [0, 5, 9, 2],
    [0, 31, 30, 5, 5, 17, 8, 2],
    [0, *[(7 * i) % 29 + 3 for i in range(68)], 2],
]


def tensors(architecture: str) -> dict[str, np.ndarray]:
    """Return the weights of an encoder, f32 that f16 represents."""
    rng = np.random.default_rng(7)

    def values(*shape: int, scale: float, mean: float = 0.0) -> np.ndarray:
        return (mean + scale * rng.standard_normal(shape)).astype(np.float16).astype(np.float32)

    out = {"embeddings.word_embeddings.weight": values(WORDS, HIDDEN, scale=1)}
    first = 2 if architecture == "mpnet" else 0
    out["embeddings.position_embeddings.weight"] = values(TOKENS + first, HIDDEN, scale=0.5)
    if architecture == "bert":
        out["embeddings.token_type_embeddings.weight"] = values(2, HIDDEN, scale=0.5)
        out["embeddings.position_ids"] = np.arange(TOKENS)[None]
        qkvo = [f"attention.self.{name}" for name in ("query", "key", "value")]
        qkvo, norm = [*qkvo, "attention.output.dense"], "attention.output.LayerNorm"
    else:
        out["encoder.relative_attention_bias.weight"] = values(32, HEADS, scale=1)
        qkvo, norm = [f"attention.attn.{name}" for name in "qkvo"], "attention.LayerNorm"
    out["pooler.dense.weight"] = values(HIDDEN, HIDDEN, scale=1)
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{number}." for number in range(LAYERS)):
        sizes = [(name, HIDDEN, HIDDEN) for name in qkvo]
        sizes += [("intermediate.dense", INNER, HIDDEN), ("output.dense", HIDDEN, INNER)]
        for name, outputs, inputs in sizes:
            out[f"{layer}{name}.weight"] = values(outputs, inputs, scale=0.4)
            out[f"{layer}{name}.bias"] = values(outputs, scale=0.3)
        norms += [layer + norm, layer + "output.LayerNorm"]
    for name in norms:
        out[f"{name}.weight"] = values(HIDDEN, scale=0.3, mean=1)
        out[f"{name}.bias"] = values(HIDDEN, scale=0.3)
    return out


def embeddings(architecture: str, weights: dict[str, np.ndarray]) -> list[list[float]]:
    """Return the embeddings of TEXTS, computed one at a time."""
    config = {
        "model_type": architecture,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "layer_norm_eps": EPSILON,
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps(config))
        save_file(weights, str(folder / "model.safetensors"))
        encoder = Encoder(folder, 1).eval()
    rows = []
    for text in TEXTS:
        ids = torch.tensor([text])
        with torch.no_grad():
            rows.append(encoder.embed(ids, torch.ones_like(ids, dtype=torch.bool))[0].tolist())
    return [[round(value, 5) for value in row] for row in rows]


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    golden = {"heads": HEADS, "epsilon": EPSILON, "texts": TEXTS}
    for architecture in ("bert", "mpnet"):
        weights = tensors(architecture)
        golden[architecture] = embeddings(architecture, weights)
        if architecture == "mpnet":
            weights = {f"mpnet.{name}": w.astype(np.float16) for name, w in weights.items()}
        (OUT / f"{architecture}.safetensors").write_bytes(save(weights, {"format": "pt"}))
    (OUT / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
