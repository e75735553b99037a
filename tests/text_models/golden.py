"""Write tests/data/text-models/golden.json: ids and scores of the small text models.

It uses no code of the server: Python's `tokenizers` and onnxruntime answer, on one thread, one text
at a time and without padding. Numbers are rounded to six digits.

- `texts`, `long`, `pairs`: the inputs of texts.py.
- `models.NAME.ids`: the ids of each text, with control tokens and without truncation. Types of
  tokens are 0 for single texts.
- `models.NAME.scores.FILE`: the scores of each text by `onnx/FILE.onnx`, with the ids truncated on
  the right to `max_tokens` in all. The activation is `sigmoid` for multi_label_classification and
  for a single label, otherwise `softmax` (as the pipeline of transformers chooses).
- `models.NAME.windows`: for each long text, the ids of the windows by
  `enable_truncation(max_length=32, stride=8)` in `tokenizers`, and the maximum and the mean of the
  windows' scores, label by label.
- `models.bert-ner.spans`: for each text the spans `[label, score, start, end]`, by the rules of
  `aggregation_strategy="simple"` in transformers; see `spans`. `start` and `end` count Unicode
  scalar values.
- `models.minilm-embedding.embeddings`: for each text of `indices`, the pooled last hidden state, by
  pooling (`mean` over the attention mask, `cls`: the first token, `last`: the last token), as it is
  and with the Euclidean length 1 (`normalized`). `normalized_mean` has that pooling of all texts.
- `models.cross-encoder.pairs`: ids and types of each pair without truncation; ids and types after
  `enable_truncation(max_tokens)`, which shortens the longer text first, or null if it has no
  effect; the logit, and the sigmoid of it, of the truncated pair.

    pip install -r requirements.txt
    python golden.py
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Encoding, Tokenizer

import texts

DATA = Path(__file__).resolve().parent.parent / "data" / "text-models"
WINDOW_TOKENS = 32
STRIDE = 8
# Texts with all poolings; the other ones have `normalized_mean` only.
POOLED_TEXTS = 10


class Reference:
    """One model folder: tokenizer, configuration and sessions of its graphs."""

    def __init__(self, folder: Path):
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.config = json.loads((folder / "config.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        # Without it, int8 products saturate on x86-64 processors without VNNI.
        options.add_session_config_entry("session.x64quantprecision", "1")
        self.sessions = {
            path.stem: onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
            for path in sorted((folder / "onnx").glob("*.onnx"))
        }
        self.max_tokens = json.loads((folder / "tokenizer_config.json").read_text())[
            "model_max_length"
        ]
        labels = self.config.get("id2label", {})
        self.labels = [labels[str(index)] for index in range(len(labels))]

    def encode(self, *text: str, max_tokens: int | None = None, stride: int = 0) -> Encoding:
        """Returns the tokens of a text or a pair, with control tokens."""
        if max_tokens is None:
            self.tokenizer.no_truncation()
        else:
            self.tokenizer.enable_truncation(max_tokens, stride=stride)
        return self.tokenizer.encode(*text)

    def run(self, encoding: Encoding, file: str = "model") -> np.ndarray:
        """Returns the first output for one text, as f64, without the batch axis."""
        session = self.sessions[file]
        values = {
            "input_ids": encoding.ids,
            "attention_mask": encoding.attention_mask,
            "token_type_ids": encoding.type_ids,
        }
        types = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
        feeds = {
            value.name: np.array([values[value.name]], dtype=types[value.type])
            for value in session.get_inputs()
        }
        return session.run(None, feeds)[0][0].astype(np.float64)

    def activation(self) -> str:
        """Returns the activation that the pipeline of transformers chooses."""
        is_sigmoid = (
            self.config.get("problem_type") == "multi_label_classification" or len(self.labels) == 1
        )
        return "sigmoid" if is_sigmoid else "softmax"

    def scores(self, encoding: Encoding, file: str = "model") -> np.ndarray:
        """Returns the scores of one text, one for each label."""
        logits = self.run(encoding, file)
        return sigmoid(logits) if self.activation() == "sigmoid" else softmax(logits)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns the logistic function of each logit."""
    return 1 / (1 + np.exp(-logits))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def rounded(value):
    """Returns numbers in nested lists and arrays, rounded to six digits."""
    if isinstance(value, np.ndarray):
        return rounded(value.tolist())
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


def windows(model: Reference) -> list[dict]:
    """Returns ids and combined scores of the windows of each long text."""
    results = []
    for text in texts.LONG:
        first = model.encode(text, max_tokens=WINDOW_TOKENS, stride=STRIDE)
        encodings = [first, *first.overflowing]
        scores = np.stack([model.scores(encoding) for encoding in encodings])
        results.append(
            {
                "ids": [encoding.ids for encoding in encodings],
                "max": rounded(scores.max(0)),
                "mean": rounded(scores.mean(0)),
            }
        )
    return results


def classifier(model: Reference) -> dict:
    """Returns the scores of a classifier of single texts."""
    encodings = [model.encode(text, max_tokens=model.max_tokens) for text in texts.TEXTS]
    return {
        "activation": model.activation(),
        "scores": {
            file: [rounded(model.scores(encoding, file)) for encoding in encodings]
            for file in model.sessions
        },
        "windows": {"max_tokens": WINDOW_TOKENS, "stride": STRIDE, "long": windows(model)},
    }


def spans(model: Reference, text: str) -> list[list]:
    """Returns the spans of a text, as `aggregation_strategy="simple"` of transformers does.

    Control tokens are left out. Each other token has the label with the highest probability
    (softmax) and that probability. Consecutive tokens of one kind form a span; `B-` starts another
    one, and `I-` of the same kind continues it, also without a `B-` before. The score is the mean
    of the tokens' probabilities. The span starts where its first token starts, and ends where its
    last token ends. Spans of `O` are left out afterwards.
    """
    encoding = model.encode(text, max_tokens=model.max_tokens)
    probabilities = softmax(model.run(encoding))
    groups = []
    last_kind = None
    for row, (start, end), is_control in zip(
        probabilities, encoding.offsets, encoding.special_tokens_mask
    ):
        if is_control:
            continue
        best = int(row.argmax())
        position, _, kind = model.labels[best].rpartition("-")
        if kind != last_kind or position == "B":
            groups.append({"kind": kind, "scores": [], "start": start})
        groups[-1]["scores"].append(row[best])
        groups[-1]["end"] = end
        last_kind = kind
    return [
        [group["kind"], rounded(float(np.mean(group["scores"]))), group["start"], group["end"]]
        for group in groups
        if group["kind"] != "O"
    ]


def pooled(model: Reference, text: str) -> dict[str, np.ndarray]:
    """Returns the pooled last hidden state of a text, by pooling."""
    encoding = model.encode(text, max_tokens=model.max_tokens)
    hidden = model.run(encoding)
    mask = np.array(encoding.attention_mask)[:, None]
    return {"mean": (hidden * mask).sum(0) / mask.sum(), "cls": hidden[0], "last": hidden[-1]}


def embeddings(model: Reference) -> dict:
    """Returns the embeddings by all poolings of some texts, and by the usual one of all."""
    rows = [pooled(model, text) for text in texts.TEXTS]
    indices = [round(index) for index in np.linspace(0, len(rows) - 1, POOLED_TEXTS)]
    return {
        "indices": indices,
        **{kind: [rounded(rows[index][kind]) for index in indices] for kind in rows[0]},
        "normalized": {
            kind: [rounded(normalized(rows[index][kind])) for index in indices] for kind in rows[0]
        },
        "normalized_mean": [rounded(normalized(row["mean"])) for row in rows],
    }


def normalized(vector: np.ndarray) -> np.ndarray:
    """Returns the vector with the Euclidean length 1."""
    return vector / np.linalg.norm(vector)


def pairs(model: Reference) -> list[dict]:
    """Returns ids, types and scores of the pairs."""
    results = []
    for pair in texts.PAIRS:
        complete = model.encode(*pair)
        used = model.encode(*pair, max_tokens=model.max_tokens)
        logit = float(model.run(used)[0])
        results.append(
            {
                "ids": complete.ids,
                "types": complete.type_ids,
                "truncated": None
                if used.ids == complete.ids
                else {"ids": used.ids, "types": used.type_ids},
                "logit": rounded(logit),
                "sigmoid": rounded(float(sigmoid(np.array(logit)))),
            }
        )
    return results


def golden(name: str, folder: Path) -> dict:
    """Returns the results of one model."""
    model = Reference(folder)
    result = {
        "max_tokens": model.max_tokens,
        "labels": model.labels,
        "ids": [model.encode(text).ids for text in texts.TEXTS],
    }
    if name == "bert-ner":
        return result | {"spans": [spans(model, text) for text in texts.TEXTS]}
    if name == "minilm-embedding":
        return {
            "max_tokens": model.max_tokens,
            "ids": result["ids"],
            "embeddings": embeddings(model),
        }
    if name == "cross-encoder":
        return {"max_tokens": model.max_tokens, "pairs": pairs(model)}
    return result | classifier(model)


def compact(value, depth: int = 0) -> str:
    """Returns JSON with the members of the upper objects on lines of their own."""
    if isinstance(value, dict) and depth < 3:
        members = (
            f"{json.dumps(key)}:{compact(member, depth + 1)}" for key, member in value.items()
        )
        return "{\n" + ",\n".join(members) + "\n}"
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", type=Path, default=DATA, help="folders of make.py (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=DATA / "golden.json", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    folders = sorted(path.parent for path in arguments.models.glob("*/config.json"))
    result = {
        "texts": texts.TEXTS,
        "long": texts.LONG,
        "pairs": texts.PAIRS,
        "models": {folder.name: golden(folder.name, folder) for folder in folders},
    }
    arguments.out.write_text(compact(result) + "\n")
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, {len(texts.TEXTS)} texts")


if __name__ == "__main__":
    main()
