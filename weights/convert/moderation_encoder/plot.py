"""Draw how calibrated the heads are: docs/plots/calibration.svg.

    python plot.py --folder OUT_DIR --data DATA_DIR --logits test.npy --split test --out plot.svg

OUT_DIR is what export.py wrote and evaluate.py calibrated; --logits is what evaluate.py wrote
beside its record. A panel for each set: the share of label 1 over the mean probability, in ten bins
of equally many rows, with 95 % intervals (Wilson). Points on the diagonal are calibrated.
"""

import argparse
from pathlib import Path

import numpy as np

import data
import heads
from evaluate import CALIBRATION
from metrics import sigmoid

SIZE, MARGIN, BINS = 170, 44, 10
STYLE = "font-family='sans-serif' fill='#333'"


def wilson(share: float, rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share."""
    z = 1.96
    middle = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * np.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return middle - half, middle + half


def panel(title: str, y: np.ndarray, p: np.ndarray, left: float, top: float) -> list[str]:
    """Return the elements of one panel."""

    def place(x: float, share: float) -> tuple[float, float]:
        return round(left + x * SIZE, 1), round(top + (1 - share) * SIZE, 1)

    (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
    out = [
        f"<rect x='{left}' y='{top}' width='{SIZE}' height='{SIZE}' fill='none' stroke='#999'/>",
        f"<line x1='{x0}' y1='{y0}' x2='{x1}' y2='{y1}' stroke='#bbb' stroke-dasharray='4 3'/>",
        f"<text x='{left}' y='{top - 8}' font-size='12' {STYLE}>{title}</text>",
    ]
    for value in (0, 0.5, 1):
        x, bottom = place(value, 0)
        out.append(f"<text x='{x - 4}' y='{bottom + 14}' font-size='10' {STYLE}>{value:g}</text>")
        out.append(f"<text x='{left - 22}' y='{place(0, value)[1] + 3}' font-size='10' {STYLE}>{value:g}</text>")
    for rows in np.array_split(np.argsort(p, kind="stable"), BINS):
        share = float(y[rows].mean())
        x, middle = place(float(p[rows].mean()), share)
        low, high = (place(0, bound)[1] for bound in wilson(share, len(rows)))
        out.append(f"<line x1='{x}' y1='{low}' x2='{x}' y2='{high}' stroke='#4477aa'/>")
        out.append(f"<circle cx='{x}' cy='{middle}' r='3' fill='#4477aa'/>")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--logits", type=Path, required=True)
    parser.add_argument("--split", choices=["dev", "test"], default="test")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    head = heads.read(arguments.folder / "heads.toml")
    rows, _ = data.without_twins(data.read(arguments.data))
    rows = [r for r in rows if r.split == arguments.split]
    logits = np.load(arguments.logits).astype(np.float64)
    measured, panels, across = data.measurements(rows), [], 3
    names = [name for sets in CALIBRATION.values() for name in sets]
    for number, name in enumerate(names):
        label, where, y = measured[name]
        p = sigmoid(head.calibrated(label, logits[where, head.labels.index(label)]))
        left = MARGIN + (number % across) * (SIZE + MARGIN + 16)
        top = 40 + (number // across) * (SIZE + 60)
        panels += panel(f"{label}, {name.split()[0]}", y, p, left, top)
    width, height = across * (SIZE + MARGIN + 16) + 20, 40 + -(-len(names) // across) * (SIZE + 60)
    head_line = f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}'>"
    background = f"<rect width='{width}' height='{height}' fill='white'/>"
    arguments.out.write_text("\n".join([head_line, background, *panels, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
