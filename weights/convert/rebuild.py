"""Rebuild every shipped model from its package and compare the result with the files in weights/.

For each file it prints `identical`, or the difference between the outputs of the rebuilt model and
those of the shipped one. int8 ranges are measured by running the network, so another processor or
another version of onnxruntime can round a scale differently.

    python rebuild.py                   # into a temporary folder
    python rebuild.py --keep /tmp/out   # keep the rebuilt files

The exit code is 1 if a text file differs, or if a model's outputs differ by more than its
tolerance.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

import efficientnet_lite0
import fetch
import image_safety
import nsfwjs
import quantise
import toxic_bilstm

WEIGHTS = Path(__file__).resolve().parent.parent


def word_ids(_cache: Path) -> np.ndarray:
    """Return i32 (64, 100): random ids, padded on the left, of random lengths."""
    random = np.random.default_rng(0)
    ids = random.integers(1, 20000, (64, toxic_bilstm.MAX_TOKENS), dtype=np.int32)
    padding = random.integers(0, toxic_bilstm.MAX_TOKENS, (64, 1))
    return np.where(np.arange(toxic_bilstm.MAX_TOKENS) < padding, 0, ids).astype(np.int32)


def photos_for(pixels: quantise.Pixels) -> Callable[[Path], np.ndarray]:
    """Return f32 (30, 3, 224, 224): the calibration photos upside down, to make them unseen."""
    return lambda cache: np.concatenate(
        [quantise.to_tensor(photo, pixels) for photo in quantise.photos(cache)]
    )[:, :, ::-1].copy()


class Recipe(NamedTuple):
    """Build and comparison of one folder of weights."""

    build: Callable[[Path, Path], None]
    inputs: Callable[[Path], np.ndarray]
    tolerance: float  # of a probability: rounding for f32, a changed scale for int8


RECIPES = {
    "toxic-bilstm": Recipe(toxic_bilstm.build, word_ids, 1e-5),
    "efficientnet-lite0-int8": Recipe(efficientnet_lite0.build, photos_for(efficientnet_lite0.PIXELS), 0.05),
    "nsfwjs-mobilenet_v2-int8": Recipe(nsfwjs.build, photos_for(nsfwjs.PIXELS), 0.05),
    "image-safety-s-int8": Recipe(image_safety.build, photos_for(image_safety.PIXELS), 0.05),
}


def outputs(model: Path, batch: np.ndarray) -> np.ndarray:
    """Return the model's first output, computed one row at a time: f32 (N, classes)."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: row[None]})[0] for row in batch])


def compare(recipe: Recipe, rebuilt: Path, shipped: Path, cache: Path) -> bool:
    """Print the comparison of one file. Return True if both are equal within the tolerance."""
    label = f"{shipped.parent.name}/{shipped.name}"
    if rebuilt.read_bytes() == shipped.read_bytes():
        print(f"{label}: identical, sha256 {fetch.sha256_of(shipped)}")
        return True
    if shipped.suffix != ".onnx":
        print(f"{label}: differs")
        return False
    batch = recipe.inputs(cache)
    ours, theirs = outputs(rebuilt, batch), outputs(shipped, batch)
    distance = float(np.abs(ours - theirs).max())
    same_best = float((ours.argmax(1) == theirs.argmax(1)).mean())
    print(
        f"{label}: other bytes; on {len(batch)} inputs the outputs differ by at most {distance:.2g} "
        f"(tolerance {recipe.tolerance:g}), the same best label on {same_best:.0%}"
    )
    return distance <= recipe.tolerance


def main() -> int:
    """Rebuild and compare. Return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=fetch.default_cache(), help="default: %(default)s")
    parser.add_argument("--keep", type=Path, help="folder for the rebuilt files")
    arguments = parser.parse_args()
    agree = True
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.keep or Path(temporary)
        for name, recipe in RECIPES.items():
            recipe.build(arguments.cache, out / name)
            for rebuilt in sorted((out / name).iterdir()):
                agree &= compare(recipe, rebuilt, WEIGHTS / name / rebuilt.name, arguments.cache)
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
