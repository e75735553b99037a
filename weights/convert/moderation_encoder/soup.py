"""Average the weights of several runs from the same pretrained weights, with validation figures.

    python soup.py --encoder MINILM_DIR --data DATA_DIR --weights OUT_DIR --name soup NAME...
    python soup.py --encoder MINILM_DIR --data DATA_DIR --weights OUT_DIR --name soup --greedy 12

With names, all runs have equal weight. With --greedy N, the N runs with the highest `score` in
results.jsonl are tried in that order, and a run is included if the score does not fall. OUT_DIR is
the folder that train.py wrote.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from data import HEADS
from model import Encoder
from prepared import Device, Prepared, figures


def put(model: Encoder, tensors: dict[str, np.ndarray]) -> None:
    """Load weights by the names of the source file, except the word table."""
    with torch.no_grad():
        model.positions.copy_(torch.from_numpy(tensors["embeddings.position_embeddings.weight"]))
        model.norm.weight.copy_(torch.from_numpy(tensors["embeddings.LayerNorm.weight"]))
        model.norm.bias.copy_(torch.from_numpy(tensors["embeddings.LayerNorm.bias"]))
        model.head.weight.copy_(torch.from_numpy(tensors["head.weight"]))
        model.head.bias.copy_(torch.from_numpy(tensors["head.bias"]))
        for number, layer in enumerate(model.layers):
            for part, names in model.parts.items():
                for kind in ("weight", "bias"):
                    values = [
                        torch.from_numpy(tensors[f"encoder.layer.{number}.{name}.{kind}"])
                        for name in names
                    ]
                    getattr(getattr(layer, part), kind).copy_(torch.cat(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--encoder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--greedy", type=int)
    parser.add_argument("--limit", type=int, help="at most this many rows, to try the script")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    prepared = Prepared(
        arguments.data, arguments.encoder / "tokenizer.json", arguments.limit, dev_only=True
    )
    device = Device(prepared, arguments.device)
    model = Encoder(arguments.encoder, len(HEADS)).to(arguments.device)
    files = {
        f.stem: f
        for folder in arguments.weights
        for f in sorted((folder / "weights").glob("*.safetensors"))
    }

    def read(name: str) -> dict[str, np.ndarray]:
        return {n: t.astype(np.float32) for n, t in load_file(str(files[name])).items()}

    def score(tensors: dict[str, np.ndarray]) -> dict[str, float]:
        put(model, tensors)
        return figures(prepared, device.all(model, "logits").cpu().numpy())

    names = arguments.names
    if arguments.greedy:
        lines = [
            line
            for folder in arguments.weights
            for line in (folder / "results.jsonl").read_text().splitlines()
        ]
        records = [
            r
            for r in map(json.loads, lines)
            if "dev" in r and not r["config"]["train_words"] and r["name"] in files
        ]
        names = [
            r["name"] for r in sorted(records, key=lambda r: -r["dev"]["score"])[: arguments.greedy]
        ]
    inside, total, best = [], None, None
    for name in names:
        tensors = read(name)
        summed = tensors if total is None else {n: total[n] + tensors[n] for n in total}
        found = score({n: t / (len(inside) + 1) for n, t in summed.items()})
        keep = not arguments.greedy or best is None or found["score"] >= best["score"]
        print(f"{'with' if keep else 'without'} {name}: {json.dumps(found)}", flush=True)
        if keep:
            inside, total, best = [*inside, name], summed, found
    mean = {n: (t / len(inside)).astype(np.float16) for n, t in total.items()}
    out = arguments.weights[0]
    save_file(mean, str(out / "weights" / f"{arguments.name}.safetensors"))
    with open(out / "results.jsonl", "a") as file:
        file.write(json.dumps({"name": arguments.name, "average_of": inside, "dev": best}) + "\n")


if __name__ == "__main__":
    main()
