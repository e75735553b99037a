"""Quantise an f32 image model to int8, with activation ranges measured on sample photos.

Weights become i8 per output channel, activations u8 per tensor (QDQ nodes, min-max ranges). The
photos are the examples in foolbox, scikit-image and scikit-learn, 30 in all, each also mirrored.
They are used for calibration and are not shipped.

    python quantise.py f32.onnx int8.onnx --input data --crop 0.875 --mean 127 --std 128
"""

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

import fetch

SIDE = 224
# A softmax in u8 gives scores in steps of 1/255, and rows that do not sum to 1.
KEPT_F32 = frozenset({"Softmax"})
# (package, folder in it, files; None means every JPEG in the folder)
PHOTOS = [
    ("foolbox", "foolbox/data/", None),
    (
        "scikit-image",
        "skimage/data/",
        [
            "astronaut.png",
            "chelsea.png",
            "coffee.png",
            "rocket.jpg",
            "motorcycle_left.png",
            "hubble_deep_field.jpg",
            "brick.png",
            "grass.png",
        ],
    ),
    ("scikit-learn", "sklearn/datasets/images/", ["china.jpg", "flower.jpg"]),
]


class Pixels(NamedTuple):
    """Preprocessing of an image, as in a card's `[inputs.image]`."""

    crop: float
    mean: float
    std: float


def photos(cache: Path) -> Iterator[Image.Image]:
    """Return the calibration photos in RGB."""
    for package, folder, files in PHOTOS:
        archive = fetch.fetch(package, cache)
        if files is None:
            names = [
                name for name in fetch.members(archive) if name.startswith(folder) and name.endswith(".jpg")
            ]
        else:
            names = [folder + file for file in files]
        for name in names:
            yield Image.open(io.BytesIO(fetch.read_member(archive, name))).convert("RGB")


def to_tensor(image: Image.Image, pixels: Pixels) -> np.ndarray:
    """Centre crop, bicubic resize and normalise: an RGB image to f32 (1, 3, 224, 224)."""
    width, height = image.size
    side = int(min(width, height) * pixels.crop)
    left, top = (width - side) // 2, (height - side) // 2
    square = image.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    values = (np.asarray(square, np.float32) - np.float32(pixels.mean)) / np.float32(pixels.std)
    return values.transpose(2, 0, 1)[None]


class PhotoReader(CalibrationDataReader):
    """Feeds each photo to the calibrator, unchanged and mirrored."""

    def __init__(self, input_name: str, pixels: Pixels, cache: Path) -> None:
        self._feeds = (
            {input_name: to_tensor(view, pixels)}
            for photo in photos(cache)
            for view in (photo, photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        )

    def get_next(self):
        return next(self._feeds, None)


def quantise(
    f32_model: Path,
    int8_model: Path,
    input_name: str,
    pixels: Pixels,
    cache: Path,
    keep_f32: frozenset[str] = KEPT_F32,
    keep_nodes: Sequence[str] = (),
) -> None:
    """Write the int8 form of `f32_model`.

    Operators of the types in `keep_f32`, and the nodes named in `keep_nodes`, stay f32.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # Symbolic shape inference needs sympy, and has no effect if only the batch axis is dynamic.
        quant_pre_process(f32_model, prepared, skip_symbolic_shape=True)
        operators = {node.op_type for node in onnx.load(prepared).graph.node} - keep_f32
        quantize_static(
            prepared,
            int8_model,
            PhotoReader(input_name, pixels, cache),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=sorted(operators),
            nodes_to_exclude=list(keep_nodes),
            extra_options={"ActivationSymmetric": False},
        )


def main() -> None:
    """Quantise the model of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("f32_model", type=Path)
    parser.add_argument("int8_model", type=Path)
    parser.add_argument("--input", required=True, help="name of the model's input")
    parser.add_argument(
        "--crop", type=float, default=1.0, help="side of the centre crop, of min(width, height)"
    )
    parser.add_argument("--mean", type=float, required=True, help="subtracted from values of 0 to 255")
    parser.add_argument("--std", type=float, required=True, help="divides the difference")
    parser.add_argument(
        "--keep-f32",
        nargs="*",
        default=sorted(KEPT_F32),
        metavar="TYPE",
        help="operators not to quantise; without a TYPE, quantise all (default: %(default)s)",
    )
    parser.add_argument("--cache", type=Path, default=fetch.default_cache())
    arguments = parser.parse_args()
    pixels = Pixels(arguments.crop, arguments.mean, arguments.std)
    quantise(
        arguments.f32_model,
        arguments.int8_model,
        arguments.input,
        pixels,
        arguments.cache,
        frozenset(arguments.keep_f32),
    )


if __name__ == "__main__":
    main()
