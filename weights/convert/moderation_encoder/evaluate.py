"""Measure an exported encoder on the validation or the test rows, and time it.

    python evaluate.py --model model-int8.onnx --tokenizer tokenizer.json --data DATA_DIR \
        --split dev \
        --calibration calibration.json --out dev.json        # fits and writes the calibration
    python evaluate.py --model ... --split test --calibration calibration.json --out test.json

Prints no texts. For each set and head: rows, AUROC with a 95 % bootstrap interval over rows
(2,000 draws, seed 0), and the expected calibration error before and after calibration. A head is
calibrated on the validation rows of the sets in CALIBRATION: `temperature` alone, and
`temperature` with a `shift`. Needs: numpy, onnxruntime, tokenizers.
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
from data import HEADS, VALIDATION
from metrics import auroc, calibration_error, fit_platt, interval, sigmoid
from text import noisy

MAX_TOKENS = 128
CALIBRATION = {
    "harassment": ["davidson harassment"],
    "hate": ["hatemoji hate"],
    "hate/threatening": ["threats hate/threatening"],
    "sexism": ["edos sexism"],
    "prompt-injection": ["slabs prompt-injection", "neuralchemy prompt-injection"],
}
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
        """Return logits f32 (N, heads) of a batch of token ids."""
        length = max(map(len, encoded))
        ids, mask = np.zeros((2, len(encoded), length), np.int64)
        for i, e in enumerate(encoded):
            ids[i, : len(e)], mask[i, : len(e)] = e, 1
        probs = self.session.run(["probs"], {"input_ids": ids, "attention_mask": mask})[0].astype(
            np.float64
        )
        return np.log(probs.clip(1e-12)) - np.log((1 - probs).clip(1e-12))

    def logits(self, texts: list[str], batch: int) -> np.ndarray:
        """Return logits of texts in their canonical form, batched by length."""
        encoded = [e.ids for e in self.tokenizer.encode_batch(texts)]
        order = np.argsort([len(e) for e in encoded], kind="stable")
        out = np.zeros((len(texts), len(HEADS)))
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            out[rows] = self([encoded[r] for r in rows])
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
    sets: dict[str, tuple[int, np.ndarray, np.ndarray]], logits: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return the calibration of each head: temperature alone, and temperature with a shift."""
    out = {}
    for head, names in CALIBRATION.items():
        column = HEADS.index(head)
        z = np.concatenate([logits[sets[n][1], column] for n in names])
        y = np.concatenate([sets[n][2] for n in names])
        alone, _ = fit_platt(y, z, shift=False)
        temperature, shift = fit_platt(y, z, shift=True)
        out[head] = {
            "temperature": round(alone, 5),
            "platt_temperature": round(temperature, 5),
            "platt_shift": round(shift, 5),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=["dev", "test"], required=True)
    parser.add_argument(
        "--calibration",
        type=Path,
        required=True,
        help="written with --split dev, read with --split test",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--noisy", action="store_true", help="read every row in an evasive spelling"
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--bootstrap", type=int, default=2000, help="draws; 0 leaves the intervals out"
    )
    arguments = parser.parse_args()
    rows, _ = data.without_twins(data.read(arguments.data))
    rows = [r for r in rows if r.split == arguments.split]
    sets = {}
    for name, (sources, head, label) in VALIDATION.items():
        where = np.array([i for i, r in enumerate(rows) if r.source in sources], np.int64)
        if len(where):
            sets[name] = (
                HEADS.index(head),
                where,
                np.array([rows[i].labels[label] for i in where]),
            )
    runner = Runner(arguments.model, arguments.tokenizer)
    texts = [r.text for r in rows]
    if arguments.noisy:
        texts = [noisy(text, random.Random(number)) for number, text in enumerate(texts)]
    logits = runner.logits(texts, arguments.batch)
    np.save(arguments.out.with_suffix(".npy"), logits.astype(np.float32))
    if arguments.split == "dev" and not arguments.noisy:
        arguments.calibration.write_text(json.dumps(calibrations(sets, logits), indent=1) + "\n")
    calibration = json.loads(arguments.calibration.read_text())
    figures = {}
    for name, (head, where, y) in sets.items():
        z, c = logits[where, head], calibration[HEADS[head]]
        figures[name] = {"rows": len(y), "label_1": int(y.sum()), "auroc": round(auroc(y, z), 4)}
        if arguments.bootstrap:
            figures[name]["interval"] = [round(x, 4) for x in interval(y, z, arguments.bootstrap)]
        figures[name]["ece_raw"] = round(calibration_error(y, sigmoid(z)), 4)
        figures[name]["ece_temperature"] = round(
            calibration_error(y, sigmoid(z / c["temperature"])), 4
        )
        figures[name]["ece_platt"] = round(
            calibration_error(y, sigmoid(z / c["platt_temperature"] + c["platt_shift"])), 4
        )
        print(name, json.dumps(figures[name]), flush=True)
    record = {
        "model": arguments.model.name,
        "split": arguments.split,
        "figures": figures,
        "forty_words_ms": runner.milliseconds(),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record["forty_words_ms"]))


if __name__ == "__main__":
    main()
