"""Write toxic-bilstm's answers to the training rows, or to those of another split.

    python words.py --data DATA_DIR --model ../../toxic-bilstm --out words.npy

f32 (rows, 5): the probabilities of data.TAUGHT, in train.py's order of the rows. Needs: numpy,
onnxruntime, tokenizers.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

import data

WORDS = 100  # of the model's input
LABELS = ["toxic", "severe_toxic", "obscene", "threat", "insult"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the CSV files")
    parser.add_argument("--model", type=Path, required=True, help="folder of toxic-bilstm")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train")
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.model / "tokenizer.json"))
    tokenizer.no_padding()
    unknown = tokenizer.token_to_id("[UNK]")
    labels = (arguments.model / "labels.txt").read_text().split()
    columns = [labels.index(label) for label in LABELS]
    session = onnxruntime.InferenceSession(str(arguments.model / "model.onnx"))
    rows, _ = data.without_twins(data.read(arguments.data))
    texts = [r.text for r in rows if r.split == arguments.split]
    answers = np.zeros((len(texts), len(LABELS)), np.float32)
    for start in range(0, len(texts), 256):
        some = tokenizer.encode_batch(texts[start : start + 256])
        ids = np.zeros((len(some), WORDS), np.int32)
        for i, encoding in enumerate(some):
            known = [t for t in encoding.ids if t != unknown][:WORDS]
            if known:
                ids[i, -len(known) :] = known
        (found,) = session.run(None, {"ids": ids})
        answers[start : start + len(some)] = found[:, columns]
    np.save(arguments.out, answers)


if __name__ == "__main__":
    main()
