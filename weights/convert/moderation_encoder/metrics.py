"""Metrics of a classifier's scores: AUROC with its bootstrap interval, and calibration."""

import numpy as np


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve; ties count half. NaN if a class is missing."""
    positive, negative = int(labels.sum()), int((1 - labels).sum())
    if not positive or not negative:
        return float("nan")
    _, where, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float(
        (ranks[where][labels == 1].sum() - positive * (positive + 1) / 2) / (positive * negative)
    )


def interval(
    labels: np.ndarray, scores: np.ndarray, samples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC, over rows."""
    rng = np.random.default_rng(seed)
    draws = (rng.integers(0, len(labels), len(labels)) for _ in range(samples))
    low, high = np.nanpercentile([auroc(labels[d], scores[d]) for d in draws], [2.5, 97.5])
    return float(low), float(high)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1 + np.tanh(z / 2))


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Return the log-odds of probabilities, limited as the guest limits them."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(p / (1 - p))


def fit_platt(
    labels: np.ndarray, logits: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Return temperature and shift of maximum likelihood: sigmoid(logit / temperature + shift).

    Newton's method.
    """
    weights = np.ones(len(labels)) if weights is None else weights
    slope, shift = 1.0, 0.0
    for _ in range(100):
        p = sigmoid(slope * logits + shift)
        error, spread = weights * (p - labels), weights * p * (1 - p) + 1e-9
        gradient = np.array([(error * logits).sum(), error.sum()])
        hessian = np.array(
            [
                [(spread * logits**2).sum(), (spread * logits).sum()],
                [(spread * logits).sum(), spread.sum()],
            ]
        )
        step = np.linalg.solve(hessian + 1e-6 * np.eye(2), gradient)
        step *= min(1.0, 0.5 / max(1e-12, float(np.abs(step).max())))
        slope, shift = max(1e-3, slope - step[0]), shift - step[1]
        if np.abs(step).max() < 1e-7:
            break
    return 1 / slope, shift


def calibration_error(labels: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> float:
    """Return the expected calibration error over `bins` bins of equally many rows."""
    order = np.argsort(probabilities, kind="stable")
    error = 0.0
    for inside in np.array_split(order, bins):
        if len(inside):
            gap = labels[inside].mean() - probabilities[inside].mean()
            error += len(inside) / len(order) * abs(gap)
    return float(error)


def perfect_error(probabilities: np.ndarray, draws: int = 200, seed: int = 0) -> float:
    """Return the mean error that labels drawn with these probabilities would show."""
    rng = np.random.default_rng(seed)
    labels = rng.random((draws, len(probabilities))) < probabilities
    return float(np.mean([calibration_error(row.astype(float), probabilities) for row in labels]))
