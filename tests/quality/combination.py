"""Compare classifier, language model and both together, from the scores that language.py saved.

    python tests/quality/combination.py scores.jsonl --out combination.json

For each set and weight of the language model: the AUROC with a 95 % interval (bootstrap over rows,
2,000 draws, seed 0) of the classifier alone, of the language model alone, of both for every text,
of both in the default band, and of both for the share of the texts nearest to the classifier's
threshold. `gain` is the difference of both to the better part, with the interval of the paired
difference. Answers are not calibrated, as by default. Prints no texts. Needs numpy.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "weights/convert/moderation_encoder"))
from metrics import auroc, log_odds

BUDGETS = [0.1, 0.2, 0.5, 1.0]
WEIGHTS = [0.05, 0.1, 0.125, 0.15, 0.2, 0.5]
# `cascade.low` and `cascade.high` of the default, as multiples of the threshold.
BAND = (0.4, 1.25)
DRAWS = 2000
# Of each set: its label, the classifier that judges the category by default, and its threshold.
SETS = {
    "davidson": ("offensive", "encoder", "harassment", 0.7),
    "hatemoji": ("hate", "encoder", "hate", 0.65),
    "stormfront": ("hate", "encoder", "hate", 0.65),
}


def interval(values: list[float]) -> list[float]:
    """Return the 95 % interval of bootstrap draws."""
    return [round(float(x), 4) for x in np.nanpercentile(values, [2.5, 97.5])]


def measure(labels: np.ndarray, parts: dict[str, np.ndarray]) -> dict:
    """Return the AUROC of each part with its interval, and the gain of the others over the better
    of `classifier` and `language`.
    """
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(labels), len(labels)) for _ in range(DRAWS)]
    drawn = {name: [auroc(labels[d], s[d]) for d in draws] for name, s in parts.items()}
    alone = {name: auroc(labels, parts[name]) for name in ("classifier", "language")}
    better = max(alone, key=alone.get)
    found = {}
    for name, scores in parts.items():
        value = auroc(labels, scores)
        found[name] = {"auroc": round(value, 4), "interval": interval(drawn[name])}
        if name not in alone:
            gains = [a - b for a, b in zip(drawn[name], drawn[better], strict=True)]
            found[name]["gain"] = round(value - alone[better], 4)
            found[name]["gain_interval"] = interval(gains)
    return found


def in_band(margins: np.ndarray, threshold: float) -> np.ndarray:
    """Return the rows whose score lies in the default band around the threshold."""
    low, high = (log_odds(np.array(threshold * bound)) for bound in BAND)
    odds = margins + log_odds(np.array(threshold))
    return np.flatnonzero((odds >= low) & (odds < high))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    groups: dict[tuple[str, str, str], list[dict]] = {}
    for file in arguments.scores:
        for line in file.read_text().splitlines():
            row = json.loads(line)
            groups.setdefault((row["policy"], row["set"], row["split"]), []).append(row)

    def read(rows: list[dict], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        label, classifier, category, threshold = SETS[name]
        y = np.array([row["labels"][label] for row in rows])
        own = np.array([row["classifiers"][classifier][category] for row in rows])
        margin = log_odds(own) - log_odds(np.array(threshold))
        return y, margin, np.array([row["language"] for row in rows])

    record = {}
    for (policy, name, split), rows in sorted(groups.items()):
        y, classifier, language = read(rows, name)
        parts = {"classifier": classifier, "language": language}
        order = np.argsort(np.abs(classifier), kind="stable")
        asked = {f"budget {budget}": order[: round(budget * len(y))] for budget in BUDGETS}
        asked["band"] = in_band(classifier, SETS[name][3])
        for weight in WEIGHTS:
            for which, near in asked.items():
                both = classifier.copy()
                both[near] += weight * (language[near] - classifier[near])
                parts[f"weight {weight}, {which}"] = both
        found = measure(y, parts)
        key = f"{name} {split}, policy {policy}"
        share = round(len(asked["band"]) / len(y), 3)
        record[key] = {"rows": len(y), "label_1": int(y.sum()), "band_share": share, **found}
        print(key, len(y), int(y.sum()), "share in the band", share)
        for part, figures in found.items():
            print(f"  {part:28}", json.dumps(figures))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
