"""Fit heads on the frozen embedding of a larger encoder, and measure them.

    python frozen.py --folder FOLDER --data DATA_DIR --cache CACHE_DIR
    python frozen.py --folder FOLDER --data DATA_DIR --cache CACHE_DIR --test

FOLDER has model.onnx and tokenizer.json, as `infer pull moderation-encoder-large` writes them. The
first command embeds a seeded sample of the training rows and the validation rows, chooses for each
head the regularisation and the weights of the sets by the mean AUROC on the validation rows, fits
the calibration there, and writes heads.toml and dev.json into FOLDER. The second measures the test
rows: test.json. Prints no texts. `--f32 MODEL.onnx` instead embeds a sample of the validation rows
with an f32 encoder, and prints the loss of AUROC. CACHE_DIR keeps embeddings. Needs: numpy,
onnxruntime, scikit-learn, tokenizers.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

import data
import heads
from data import HEADS, Mix, Row, targets
from evaluate import CALIBRATION, Runner, found_at
from metrics import auroc, calibration_error, fit_platt, interval, sigmoid

# Training rows of each set; all rows that are marked as threats are added.
SAMPLE = {
    "davidson": 3500,
    "edos": 3500,
    "slabs": 3000,
    "neuralchemy": 2000,
    "hatemoji": 9999,
    "harmless": 500,
}

# Rows of each set that are embedded for choosing, for measuring, and in f32 too. Stormfront has
# validation rows only: those that are not for choosing are for measuring.
CHOOSING, MEASURING, COMPARED = 500, 500, 100

STRENGTHS = [1, 5, 25]
MIXES = [
    Mix(davidson_hate=0, harmless=0.5, repeat_hatemoji=1),
    Mix(davidson_hate=0.3, edos_hate=0.3, harmless=0.5, repeat_hatemoji=1),
]


def sample(rows: list[Row]) -> list[int]:
    """Return the training rows that are embedded."""
    rng, chosen = random.Random(0), []
    for source, count in SAMPLE.items():
        found = [i for i, r in enumerate(rows) if r.source == source and r.split == "train"]
        rng.shuffle(found)
        threats = [i for i in found if rows[i].labels.get("threat")]
        chosen += sorted({*found[:count], *threats})
    return chosen


def drawn(rows: list[Row], split: str, count: int, after: int = 0) -> list[int]:
    """Return up to `count` rows of each set in a split, after the first `after` of the draw."""
    rng, chosen = random.Random(1), []
    for source in ("davidson", "edos", "slabs", "neuralchemy", "hatemoji", "stormfront"):
        found = [i for i, r in enumerate(rows) if r.source == source and r.split == split]
        rng.shuffle(found)
        chosen += sorted(found[after : after + count])
    return chosen


def validation(rows: list[Row]) -> list[int]:
    """Return the rows for choosing."""
    return drawn(rows, "dev", CHOOSING)


def test(rows: list[Row]) -> list[int]:
    """Return the rows for measuring."""
    rest = drawn(rows, "dev", MEASURING, after=CHOOSING)
    return drawn(rows, "test", MEASURING) + [i for i in rest if rows[i].source == "stormfront"]


def compared(rows: list[Row]) -> list[int]:
    """Return rows for choosing that are compared with f32."""
    return drawn(rows, "dev", COMPARED)


def embedded(
    name: str, rows: list[Row], chosen: list[int], model: Path, folder: Path, cache: Path
) -> np.ndarray:
    """Return embeddings f32 (rows, size) of the chosen rows, from the cache if it has them."""
    place = cache / f"{name}.npz"
    if place.exists():
        stored = np.load(place)
        if stored["index"].tolist() == chosen:
            return stored["e"]
    runner = Runner(model, folder / "tokenizer.json")
    found = runner.embeddings([rows[i].text for i in chosen], 1)
    np.savez(place, index=np.array(chosen), e=found)
    return found


def fit(x: np.ndarray, y: np.ndarray, w: np.ndarray, strength: float):
    """Return weights and bias of a logistic regression on the rows with a weight."""
    used = w > 0
    model = LogisticRegression(C=strength, max_iter=1000)
    model.fit(x[used], y[used].astype(int), sample_weight=w[used])
    return model.coef_[0].astype(np.float32), np.float32(model.intercept_[0])


def score(row: np.ndarray, head: str, x: np.ndarray, measured: dict) -> float:
    """Return the mean AUROC of a head over its sets."""
    return float(
        np.mean([auroc(y, x[i] @ row) for of, i, y in measured.values() if of == head])
    )


def choose(rows: list[Row], x: np.ndarray, dev: np.ndarray, measured: dict):
    """Return weights, biases and settings of the best head of each label."""
    weights, biases, settings = [], [], {}
    for column, head in enumerate(HEADS):
        best = None
        for mix in MIXES if head == "hate" else MIXES[:1]:
            y, w = (array[:, column] for array in targets(rows, mix))
            for strength in STRENGTHS:
                row, bias = fit(x, y, w, strength)
                found = score(row, head, dev, measured)
                if best is None or found > best[0]:
                    best = (found, row, bias, strength, mix)
        found, row, bias, strength, mix = best
        weights.append(row)
        biases.append(bias)
        settings[head] = {
            "auroc": round(found, 4),
            "c": strength,
            "davidson_hate": mix.davidson_hate,
            "edos_hate": mix.edos_hate,
        }
        print(head, json.dumps(settings[head]), flush=True)
    return np.array(weights), np.array(biases), settings


def calibrations(measured: dict, logits: np.ndarray) -> dict[str, dict[str, float]]:
    """Return temperature and shift of each head, from the sets of its labels."""
    out = {}
    for head, names in CALIBRATION.items():
        z = np.concatenate([logits[measured[n][1], HEADS.index(head)] for n in names])
        y = np.concatenate([measured[n][2] for n in names])
        temperature, shift = fit_platt(y, z)
        out[head] = {"temperature": round(temperature, 5), "shift": round(shift, 5)}
    return out


def figures(measured: dict, head: heads.Heads, x: np.ndarray) -> dict[str, dict]:
    """Return AUROC with its interval, calibration error, and thresholds for each set."""
    logits, out = head.logits(x), {}
    for name, (label, places, y) in measured.items():
        z = logits[places, head.labels.index(label)]
        p = sigmoid(head.calibrated(label, z))
        out[name] = {"rows": len(y), "label_1": int(y.sum()), "auroc": round(auroc(y, z), 4)}
        out[name]["interval"] = [round(value, 4) for value in interval(y, z)]
        out[name]["ece"] = round(calibration_error(y, p), 4)
        out[name] |= {f"{alarms:.0%}": found_at(y, p, alarms) for alarms in (0.01, 0.02, 0.05)}
        shares = {t / 10: [(p[y == kind] >= t / 10).mean() for kind in (1, 0)] for t in range(3, 10)}
        out[name]["flagged"] = {t: [round(float(s), 3) for s in both] for t, both in shares.items()}
        print(name, json.dumps(out[name]), flush=True)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--test", action="store_true", help="measure the test rows")
    parser.add_argument("--f32", type=Path, metavar="MODEL", help="compare with an f32 encoder")
    arguments = parser.parse_args()
    folder, file = arguments.folder, arguments.folder / "heads.toml"
    model = folder / "model.onnx"
    rows, _ = data.without_twins(data.read(arguments.data))

    def load(name: str, chosen: list[int], encoder: Path = model):
        found = embedded(name, rows, chosen, encoder, folder, arguments.cache)
        return [rows[i] for i in chosen], found

    if arguments.test:
        part, x = load("test", test(rows))
        found = {"figures": figures(data.measurements(part), heads.read(file), x)}
        found["forty_words_ms"] = Runner(model, folder / "tokenizer.json").milliseconds()
        (folder / "test.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found["forty_words_ms"]))
        return
    if arguments.f32:
        part, before = load("f32", compared(rows), arguments.f32)
        _, after = load("int8", compared(rows))
        head = heads.read(file)
        print("cosine", (before * after).sum(1).mean(), (before * after).sum(1).min())
        for name, (label, places, y) in data.measurements(part).items():
            column = head.labels.index(label)
            z = [auroc(y, head.logits(x)[places, column]) for x in (before, after)]
            print(f"{name}: f32 {z[0]:.4f}, int8 {z[1]:.4f}, difference {z[1] - z[0]:+.4f}")
        return
    part, x = load("train", sample(rows))
    dev, y = load("dev", validation(rows))
    measured = data.measurements(dev)
    weights, biases, settings = choose(part, x, y, measured)
    encoder = hashlib.sha256(model.read_bytes()).hexdigest()
    head = heads.Heads(encoder, HEADS, weights, biases)
    head.calibration = calibrations(measured, head.logits(y))
    heads.write(file, head)
    found = {"train_rows": len(part), "settings": settings, "figures": figures(measured, head, y)}
    (folder / "dev.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
