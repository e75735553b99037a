"""Measure an exported encoder on the validation or the test rows, and time it.

    python evaluate.py --folder OUT_DIR --data DATA_DIR --split dev --out dev.json
    python evaluate.py --folder OUT_DIR --data DATA_DIR --split test --out test.json

OUT_DIR is what export.py wrote. `--split dev` fits the calibration of each head on the validation
rows of the sets in CALIBRATION, a temperature and a shift, and writes it into heads.toml; the test
split uses it. Prints no texts. For each set and head: rows, AUROC with a 95 % bootstrap interval
over rows (2,000 draws, seed 0), the expected calibration error before and after calibration with
the error that a perfect calibration would show on as many rows, and the share of positive rows
found at thresholds with false alarms of 1, 2 and 5 %. Needs: numpy, onnxruntime, tokenizers.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

import data
import heads
from data import TAUGHT
from metrics import auroc, calibration_error, fit_platt, interval, perfect_error, sigmoid
from text import noisy

MAX_TOKENS = 128
CALIBRATION = {
    "harassment": ["davidson harassment"],
    "hate": ["hatemoji hate"],
    "hate/threatening": ["threats hate/threatening"],
    "sexism": ["edos sexism"],
    "prompt-injection": ["slabs prompt-injection", "neuralchemy prompt-injection"],
}
# Heads whose sets are built half of label 1: the validation rows are weighted so, too.
HALVES = {"hate"}
# Sets whose validation rows count as label 0 of a head as well.
FURTHER = {"prompt-injection": ["davidson", "edos"]}
FORTY_WORDS = (
    "the committee met on tuesday to talk about the new library and most of the people who "
    "came wanted longer hours in the evening although a few said that the money should rather "
    "go to the old swimming pool first"
)


class Runner:
    """An exported model with its tokenizer, on one thread."""

    def __init__(self, model: Path, tokenizer: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)

    def __call__(self, encoded: list[list[int]]) -> np.ndarray:
        """Return embeddings f32 (N, size) of a batch of token ids."""
        length = max(map(len, encoded))
        ids, mask = np.zeros((2, len(encoded), length), np.int64)
        for i, e in enumerate(encoded):
            ids[i, : len(e)], mask[i, : len(e)] = e, 1
        return self.session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]

    def embeddings(self, texts: list[str], batch: int) -> np.ndarray:
        """Return embeddings of texts in their canonical form, batched by length.

        Quantised activations have the scale of their batch, so the service computes one text at a
        time, as does a batch of 1.
        """
        encoded = [e.ids for e in self.tokenizer.encode_batch(texts)]
        order = np.argsort([len(e) for e in encoded], kind="stable")
        out = None
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            found = self([encoded[r] for r in rows])
            if out is None:
                out = np.zeros((len(texts), found.shape[1]), np.float32)
            out[rows] = found
        return out

    def milliseconds(self, repeats: int = 200) -> dict[str, float]:
        """Return the CPU time of one text of 40 words, alone in its batch: minimum, median, p90.

        It depends less on other load than wall-clock time does.
        """
        encoded = [self.tokenizer.encode(FORTY_WORDS).ids]
        times = []
        for _ in range(repeats + 20):
            begin = time.process_time()
            self(encoded)
            times.append((time.process_time() - begin) * 1e3)
        low, middle, high = np.percentile(times[20:], [0, 50, 90])
        return {
            "tokens": len(encoded[0]),
            "fastest": round(low, 3),
            "median": round(middle, 3),
            "p90": round(high, 3),
        }


def calibrations(
    sets: dict[str, tuple[str, np.ndarray, np.ndarray]],
    logits: np.ndarray,
    labels: list[str],
    source: np.ndarray,
) -> dict[str, dict[str, float]]:
    """Return temperature and shift of each head."""
    out = {}
    for label, names in CALIBRATION.items():
        column = labels.index(label)
        z = np.concatenate([logits[sets[n][1], column] for n in names])
        y = np.concatenate([sets[n][2] for n in names])
        further = logits[np.isin(source, FURTHER.get(label, [])), column]
        z, y = np.concatenate([z, further]), np.concatenate([y, np.zeros(len(further))])
        weights = np.where(y == 1, (y == 0).sum() / (y == 1).sum(), 1) if label in HALVES else None
        temperature, shift = fit_platt(y, z, weights)
        out[label] = {"temperature": round(temperature, 5), "shift": round(shift, 5)}
    return out


def found_at(y: np.ndarray, p: np.ndarray, alarms: float) -> dict[str, float]:
    """Return the lowest threshold with at most this share of false alarms, and the share found."""
    harmless = np.sort(p[y == 0])[::-1]
    threshold = float(np.nextafter(harmless[int(alarms * len(harmless))], 1))
    return {"threshold": round(threshold, 4), "found": round(float((p[y == 1] >= threshold).mean()), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="model.onnx", help="file in the folder")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=["dev", "test"], required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--noisy", action="store_true", help="read every row in an evasive spelling"
    )
    parser.add_argument("--words", type=Path, help="toxic-bilstm's answers to these rows (words.py)")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument(
        "--bootstrap", type=int, default=2000, help="draws; 0 leaves the intervals out"
    )
    arguments = parser.parse_args()
    file = arguments.folder / "heads.toml"
    head = heads.read(file)
    rows, _ = data.without_twins(data.read(arguments.data))
    rows = [r for r in rows if r.split == arguments.split]
    sets = data.measurements(rows)
    runner = Runner(arguments.folder / arguments.model, arguments.folder / "tokenizer.json")
    texts = [r.text for r in rows]
    if arguments.noisy:
        texts = [noisy(text, random.Random(number)) for number, text in enumerate(texts)]
    logits = head.logits(runner.embeddings(texts, arguments.batch))
    np.save(arguments.out.with_suffix(".npy"), logits.astype(np.float32))
    if arguments.split == "dev" and not arguments.noisy and arguments.model == "model.onnx":
        head.calibration = calibrations(
            sets, logits, head.labels, np.array([r.source for r in rows])
        )
        heads.write(file, head)
    figures = {}
    for name, (label, where, y) in sets.items():
        z = logits[where, head.labels.index(label)]
        p = sigmoid(head.calibrated(label, z))
        figures[name] = {"rows": len(y), "label_1": int(y.sum()), "auroc": round(auroc(y, z), 4)}
        if arguments.bootstrap:
            figures[name]["interval"] = [round(x, 4) for x in interval(y, z, arguments.bootstrap)]
        figures[name]["ece_raw"] = round(calibration_error(y, sigmoid(z)), 4)
        figures[name]["ece"] = round(calibration_error(y, p), 4)
        figures[name]["ece_of_perfect"] = round(perfect_error(p), 4)
        figures[name] |= {f"{alarms:.0%}": found_at(y, p, alarms) for alarms in (0.01, 0.02, 0.05)}
        print(name, json.dumps(figures[name]), flush=True)
    if arguments.words:
        posts = np.isin([r.source for r in rows], ["davidson", "hatemoji", "edos"])
        for label, answers in zip(TAUGHT, np.load(arguments.words)[posts].T, strict=True):
            if label not in head.labels:
                continue
            z = logits[posts, head.labels.index(label)]
            figures[f"posts {label}, toxic-bilstm's"] = found = {
                "rows": len(answers),
                "above_0.5": int((answers >= 0.5).sum()),
                "auroc": round(auroc((answers >= 0.5).astype(int), z), 4),
                "mean_difference": round(float(np.abs(sigmoid(z) - answers).mean()), 4),
            }
            print(label, json.dumps(found), flush=True)
    record = {
        "model": arguments.model,
        "split": arguments.split,
        "figures": figures,
        "forty_words_ms": runner.milliseconds(),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["forty_words_ms"]))


if __name__ == "__main__":
    main()
