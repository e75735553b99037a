"""Read an exported encoder back: ONNX in int8 and heads.toml to a folder like the pretrained one.

    python unpack.py --encoder MINILM_DIR --model model.onnx --heads heads.toml --out OUT_DIR

OUT_DIR gets config.json, tokenizer.json and model.safetensors, with `head.weight` and `head.bias`.
Needs: numpy, onnx, safetensors.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

import heads


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("encoder", "model", "heads", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(arguments.model).graph.initializer}
    pretrained = load_file(str(arguments.encoder / "model.safetensors"))
    tensors = {}
    for name, tensor in pretrained.items():
        if name + "_quantized" in stored:
            # Stored transposed, with one scale for each output.
            tensor = (stored[name + "_quantized"] * stored[name + "_scale"]).T
        elif name in stored:
            tensor = stored[name]
        tensors[name] = np.ascontiguousarray(tensor)
    tensors["embeddings.position_embeddings.weight"] = stored["positions"]
    tensors["embeddings.token_type_embeddings.weight"][:] = 0
    head = heads.read(arguments.heads)
    tensors["head.weight"], tensors["head.bias"] = head.weights.copy(), head.bias
    save_file(tensors, str(arguments.out / "model.safetensors"))
    for name in ("config.json", "tokenizer.json"):
        shutil.copyfile(arguments.encoder / name, arguments.out / name)


if __name__ == "__main__":
    main()
