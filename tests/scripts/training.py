"""Write golden values for the numerics of host/train: scikit-learn and SciPy compute them.

    python tests/scripts/training.py > host/train/src/golden.json

Needs numpy, scipy and scikit-learn; any recent versions agree to the tolerances of the tests.
"""

import json
import sys

import numpy as np
from scipy.optimize import minimize
from scipy.stats import beta, binom
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, cohen_kappa_score, f1_score, roc_auc_score

BINS = 10


def figures(truths: np.ndarray, scores: np.ndarray) -> dict:
    """Ranking, calibration error, best F1, and Cohen's kappa at 0.5."""
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    error = sum(
        abs(scores[bins == index].mean() - truths[bins == index].mean()) * (bins == index).mean()
        for index in range(BINS)
        if (bins == index).any()
    )
    best = max(f1_score(truths, scores >= threshold) for threshold in np.unique(scores))
    return {
        "scores": scores.tolist(),
        "truths": truths.astype(bool).tolist(),
        "auroc": roc_auc_score(truths, scores),
        "average_precision": average_precision_score(truths, scores),
        "calibration_error": error,
        "best_f1": best,
        "kappa": cohen_kappa_score(truths, scores >= 0.5),
    }


def platt(truths: np.ndarray, logits: np.ndarray) -> dict:
    """Temperature and shift, by a general minimiser, with Platt's targets."""
    positives, negatives = truths.sum(), (~truths).sum()
    targets = np.where(truths, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(point):
        logit = point[0] * logits + point[1]
        return (targets * np.logaddexp(0, -logit) + (1 - targets) * np.logaddexp(0, logit)).sum()

    slope, shift = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 10_000}).x
    return {"logits": logits.tolist(), "truths": truths.tolist(), "temperature": 1 / slope, "shift": shift}


def regression(rows: np.ndarray, truths: np.ndarray, c: float, weights: str | None) -> dict:
    """Weights and bias in the units of the rows; `c` applies to scaled rows, as in logistic.rs."""
    mean = rows.mean(axis=0)
    spread = np.sqrt(((rows - mean) ** 2).sum(axis=1).mean())
    model = LogisticRegression(C=c, class_weight=weights, tol=1e-12, max_iter=100_000)
    model.fit((rows - mean) / spread, truths)
    scaled = model.coef_[0] / spread
    return {
        "rows": rows.tolist(),
        "truths": truths.tolist(),
        "c": c,
        "balanced": weights == "balanced",
        "weights": scaled.tolist(),
        "bias": model.intercept_[0] - scaled @ mean,
    }


def main() -> None:
    random = np.random.default_rng(7)
    truths = random.random(60) < 0.4
    logits = np.round(random.normal(size=60) * 2 + 2.5 * truths - 1, 3)
    tied = np.round(1 / (1 + np.exp(-logits)), 1)
    rows = np.round(random.normal(size=(40, 6)) * [1, 0.5, 2, 1, 0.1, 1] + 1.5, 3).astype(np.float32)
    kinds = rows.astype(np.float64) @ [1, -2, 0.5, 0, 3, 0] + random.normal(size=40) > 1.2
    bounds = [
        {"errors": k, "of": n, "confidence": c, "upper": 1.0 if k == n else beta.ppf(c, k + 1, n - k)}
        for k, n, c in [(0, 1, 0.95), (0, 299, 0.95), (3, 50, 0.9), (50, 50, 0.95), (7, 4_000, 0.99), (1_200, 20_000, 0.95), (19_999, 20_000, 0.95)]
    ]
    tails = [
        {"errors": k, "of": n, "share": p, "tail": binom.cdf(k, n, p)}
        for k, n, p in [(0, 10, 0.1), (5, 100, 0.01), (20, 100, 0.5), (80, 100, 0.5), (10, 5_000, 0.01), (99, 10_000, 0.01)]
    ]
    needed = [{"share": p, "confidence": c, "needed": next(n for n in range(1, 10**6) if (1 - p) ** n <= 1 - c)} for p, c in [(0.01, 0.95), (0.05, 0.9), (0.001, 0.99), (0.5, 0.5)]]
    golden = {
        "figures": [figures(truths, 1 / (1 + np.exp(-logits))), figures(truths, tied)],
        "calibrations": [platt(truths, logits), platt(truths[:12], logits[:12] * 3)],
        "regressions": [
            regression(rows.astype(np.float64), kinds, c, weights)
            for c, weights in [(0.1, "balanced"), (1.0, None), (100.0, "balanced")]
        ],
        "bounds": bounds,
        "tails": tails,
        "needed": needed,
    }
    json.dump(golden, sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
