"""Compare classifier, language model and both together, from the scores that language.py saved.

    python tests/quality/combination.py scores.jsonl --out combination.json

Answers of each policy are calibrated on the rows of the split `dev` that its file has (Platt's
method), as `infer calibrate --language-budget` does, unless they are no better than chance there;
Stormfront has no other split, so it is not calibrated on. Then, for each set and weight of the
language model: the AUROC with a 95 % interval (bootstrap over rows, 2,000 draws, seed 0) of the
classifier alone, of the language model alone, of both for every text, and of both for the share of
the texts nearest to the classifier's threshold.
`gain` is the difference of both to the better part, with the interval of the paired difference.
Prints no texts. Needs numpy.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "weights/convert/moderation_encoder"))
from metrics import auroc, fit_platt, log_odds

BUDGETS = [0.05, 0.1, 0.2, 0.5, 1.0]
WEIGHTS = [0.25, 0.5]
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

    calibration = {}
    for (policy, name, split), rows in groups.items():
        if split == "dev" and name != "stormfront":
            y, _, language = read(rows, name)
            if auroc(y, language) > 0.5:
                temperature, shift = fit_platt(y, language)
                calibration[policy] = (float(temperature), float(shift))
    record = {"calibration": calibration, "sets": {}}
    for (policy, name, split), rows in sorted(groups.items()):
        y, classifier, answers = read(rows, name)
        temperature, shift = calibration.get(policy, (1.0, 0.0))
        language = answers / temperature + shift
        parts = {"classifier": classifier, "language": answers}
        for weight in WEIGHTS:
            for budget in BUDGETS:
                near = np.argsort(np.abs(classifier), kind="stable")[: round(budget * len(y))]
                both = classifier.copy()
                both[near] += weight * (language[near] - classifier[near])
                parts[f"weight {weight}, budget {budget}"] = both
        found = measure(y, parts)
        key = f"{name} {split}, policy {policy}"
        record["sets"][key] = {"rows": len(y), "label_1": int(y.sum()), **found}
        print(key, len(y), int(y.sum()))
        for part, figures in found.items():
            print(f"  {part:28}", json.dumps(figures))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
