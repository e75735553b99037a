"""Write tests/data/golden.json: outputs of the shipped models by an independent implementation.

It uses no code of the server: Python's onnxruntime runs the models, Pillow decodes the images, and
this script implements tokeniser and preprocessing from the models' own descriptions.

Texts. words.py splits them and looks up the words. Unknown words are dropped. The last 100 ids are
used, padded with zeros on the left to 100.

Synthetic tensors. Value i of the row-major tensor is (v - mean) / std in f32, with the mean and std
of the card and, in integers,
    noise:  v = (i * 7919) % 256
    bands:  v = (i / 5) % 256, rounded down
The batch axis is 1.

Photos. Decode; take the first frame of an animation; apply the EXIF orientation; composite alpha on
white; repeat grey in three channels. Centre crop: side = floor(min(width, height) * crop), left =
(width - side) / 2, top = (height - side) / 2, both rounded down. Then Pillow's BICUBIC (a = -0.5,
antialiased, rounded to u8 after each of its two passes, horizontal first) to 224 by 224, and (v -
mean) / std in f32, NCHW.

Views, of the photos and of tests/data/views, for the image models of moderation. Frames of an
animation: at most MAX_VIEWS, spread evenly from the first to the last, each index rounded down.
Squares of each frame, with the side above: the central square if it covers three quarters of the
longer side; otherwise as many squares as cover that side, plus one if that number is even, and at
most MAX_VIEWS divided by the number of frames. They are spread evenly from end to end, each offset
rounded down. A category's score is the maximum over the views. A view whose resized pixels differ
by at most BLANK_LEVELS from its first pixel is blank, and counts only if all views are blank.

    pip install -r weights/convert/requirements.txt
    python tests/scripts/golden.py           # write the file
    python tests/scripts/golden.py --check   # compare with the file; exit code 1 if it is outdated
"""

import argparse
import hashlib
import json
import math
import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
from PIL import Image, ImageOps
from words import vocabulary, word_ids

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "weights"
PHOTOS = ROOT / "tests" / "data" / "photos"
VIEWS = ROOT / "tests" / "data" / "views"
GOLDEN = ROOT / "tests" / "data" / "golden.json"

TEXT_MODEL = "toxic-bilstm"
IMAGE_MODELS = ["efficientnet-lite0-int8", "nsfwjs-mobilenet_v2-int8", "image-safety-s-int8"]
# Labels whose sum is a category's score. Of several models the highest score counts.
CATEGORIES = {
    "sexual": {"nsfwjs-mobilenet_v2-int8": ["Porn", "Hentai"], "image-safety-s-int8": ["NSFW"]},
    "violence/graphic": {"image-safety-s-int8": ["NSFL"]},
}
MAX_VIEWS = 5
BLANK_LEVELS = 2  # of 255
TOP = 5
ROUNDING = 1e-6  # of a score, between processors; an emulated Haswell differs by 1.2e-7

TEXTS = {
    "empty": "",
    "clean": "Thank you for fixing the article so quickly, it reads much better now.",
    "insult": "You are so dumb and stupid!",
    "uppercase": "YOU ARE SO DUMB AND STUPID!",
    "threat": "I will find you and kill you and your family",
    "hate": "All immigrants are filthy animals and should go back to where they came from",
    "punctuation only": "?!... --- *** ((())) #@$%^&",
    "no known word": "xqzzt brrfgl wwyzzk",
    "tabs and newlines": "you\tare\nan\n\n\tidiot\r\nreally",
    "no-break space": "see my\u00a0talk page \u00a0 and you\u00a0are an idiot",
    "unicode": "ΟΔΟΣ STRAẞE İstanbul JOSÉ's 日本語 🙂 “I’M” don’t — café… idiot",
    "control characters": "you\u0000are\u0007a stupid\u200b fool\u2028indeed idiot",
    "exactly 100 words": "nice " * 99 + "idiot",
    "the beginning is cut off": "you are a stupid idiot "
    + "the weather is lovely and the garden is full of flowers today " * 10,
    "the end counts": "the weather is lovely and the garden is full of flowers today " * 10
    + "you are a stupid idiot",
    "spaces only": "     ",
}

# Compare scores by index: the logits are u8, so labels can tie, and backends order close ones
# differently.
TOLERANCES = {
    "tensor_tolerance": 0.02,
    "tensor_tolerance_reason": "int8: a value on the edge of a rounding step may go either way, and one step of a"
    " logit, 0.072, moves a score by up to 0.018; these outputs move by up to 0.012 with graph optimisation off,"
    " where onnxruntime computes the same graph in f32, and by up to 0.0155 on rten 0.27.0",
    "photo_tolerance": 0.06,
    "photo_tolerance_reason": "as for tensors (up to 0.052 with graph optimisation off, on the retina), and other"
    " decoders and resizers: the Rust crates image 0.25.9 and fast_image_resize 5.1.4 differ from Pillow by up to 6"
    " of 255 levels in a pixel, by 0.33 on average over the worst photo, which moves a score by up to 0.031 on"
    " onnxruntime and, with rten's own roundings, by up to 0.042 there",
    "quadrant_tolerance": 1.0,
    "quadrant_tolerance_reason": "levels of 0 to 255, means of a quarter of the resized pixels; the same crates differ"
    " by up to 0.27, a wrong orientation or background by 90",
}


def card_of(name: str) -> dict:
    """Returns the model's card."""
    return tomllib.loads((WEIGHTS / name / "card.toml").read_text(encoding="utf-8"))


def labels_of(name: str) -> list[str]:
    """Returns the model's labels in output order."""
    return (WEIGHTS / name / "labels.txt").read_text(encoding="utf-8").splitlines()


class Session:
    """A model on one thread.

    The option sets precise int8 products. By default, onnxruntime on an x86-64 processor without
    VNNI adds products of u8 and i8 in 16 bits, which saturate, and EfficientNet's outputs move by
    up to 0.5. With the option, an emulated Haswell and a processor with VNNI differ only in the
    last bits of the f32 softmax.
    """

    def __init__(self, name: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.x64quantprecision", "1")
        path = WEIGHTS / name / "model.onnx"
        self.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, values: np.ndarray) -> np.ndarray:
        """Returns the first output for the first input."""
        return self.session.run(None, {self.session.get_inputs()[0].name: values})[0]


def numbers(values: np.ndarray) -> list[float]:
    """Returns f32 values with nine digits, which represent them exactly."""
    return [float(f"{value:.9g}") for value in np.asarray(values, np.float32).ravel()]


def text_golden() -> dict:
    """Returns ids and probabilities of each text."""
    card = card_of(TEXT_MODEL)
    length = card["text"]["max_tokens"]
    words = vocabulary(WEIGHTS / TEXT_MODEL / "tokenizer.json")
    session = Session(TEXT_MODEL)
    cases = []
    for name, text in TEXTS.items():
        ids = word_ids(text, words)[-length:]
        ids = [0] * (length - len(ids)) + ids
        probabilities = session.run(np.array([ids], np.int32))[0]
        cases.append({"name": name, "text": text, "ids": ids, "probs": numbers(probabilities)})
    return {
        "model": TEXT_MODEL,
        "sha256": session.sha256,
        "labels": labels_of(TEXT_MODEL),
        "tolerance": 1e-4,
        "tolerance_reason": "f32: backends may sum in another order and approximate sigmoid and tanh otherwise",
        "cases": cases,
    }


def synthetic(formula: str, image: dict) -> np.ndarray:
    """Returns the tensor of a formula, f32 (1, 3, 224, 224)."""
    index = np.arange(3 * 224 * 224, dtype=np.int64)
    values = {"noise": index * 7919 % 256, "bands": index // 5 % 256}[formula]
    return normalised(values, image).reshape(1, 3, 224, 224)


def normalised(values: np.ndarray, image: dict) -> np.ndarray:
    """Returns (v - mean) / std in f32."""
    return (values.astype(np.float32) - np.float32(image["mean"])) / np.float32(image["std"])


def upright(image: Image.Image, behind: str = "white") -> Image.Image:
    """Returns the photo in RGB, with its EXIF orientation applied and alpha composited."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        below = Image.new("RGBA", image.size, behind)
        image = Image.alpha_composite(below, image.convert("RGBA"))
    return image.convert("RGB")


def cropped(photo: Image.Image, crop: float) -> tuple[list[int], np.ndarray]:
    """Returns the crop box [left, top, side], and the pixels: u8 (224, 224, 3)."""
    side = int(min(photo.size) * crop)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    return [left, top, side], np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))


def offsets(short: int, long: int, crop: float, max_count: int) -> tuple[int, list[int]]:
    """Returns the side of the squares, and their offsets on the longer side."""
    side = max(1, int(short * crop))
    margin = (short - side) // 2
    span = long - 2 * margin
    needed = 1 if side >= span * 3 / 4 else math.ceil(span / side)
    count = min(needed + 1 - needed % 2, max_count)
    if count == 1:
        return side, [(long - side) // 2]
    return side, [margin + step * (span - side) // (count - 1) for step in range(count)]


def views(image: Image.Image, crop: float) -> list[tuple[list[int], np.ndarray]]:
    """Returns the views of an image, each as [frame, left, top, side] and its pixels."""
    frames = getattr(image, "n_frames", 1)
    count = min(frames, MAX_VIEWS)
    chosen = [step * (frames - 1) // (count - 1) for step in range(count)] if count > 1 else [0]
    found = []
    for frame in chosen:
        image.seek(frame)
        before = []
        for behind in ["white", "black"] if image.has_transparency_data else ["white"]:
            shown = upright(image.copy() if frames > 1 else image, behind)
            side, starts = offsets(min(shown.size), max(shown.size), crop, MAX_VIEWS // count)
            margin = (min(shown.size) - side) // 2
            fresh = []
            for start in starts:
                left, top = (start, margin) if shown.width >= shown.height else (margin, start)
                square = shown.crop((left, top, left + side, top + side))
                pixels = np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))
                fresh.append(([frame, left, top, side], pixels))
            alike = [are_alike(white[1], black[1]) for white, black in zip(before, fresh)]
            found += [view for view, is_known in zip(fresh, alike or [False] * len(fresh)) if not is_known]
            before = fresh
    return [view for view in found if not is_blank(view[1])] or found[:1]


def are_alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns True if two views do not differ visibly."""
    return np.abs(one.astype(int) - other.astype(int)).max() <= BLANK_LEVELS


def is_blank(pixels: np.ndarray) -> bool:
    """Returns True if all pixels, (height, width, 3), have the colour of the first."""
    return np.abs(pixels.astype(int) - pixels[0, 0].astype(int)).max() <= BLANK_LEVELS


def category_score(labels_by_model: dict[str, list[str]], sessions: dict, found: list) -> float:
    """Returns the highest score of a category in any view, by any model."""
    scores = []
    for name, labels in labels_by_model.items():
        image = card_of(name)["inputs"][0]["image"]
        indices = [labels_of(name).index(label) for label in labels]
        for _, pixels in found:
            row = sessions[name].run(normalised(pixels, image).transpose(2, 0, 1)[None])[0]
            scores.append(row[indices].sum())
    return numbers(max(scores))[0]


def view_golden() -> list[dict]:
    """Returns the views of each image, and its score for each category."""
    names = {name for labels_by_model in CATEGORIES.values() for name in labels_by_model}
    sessions = {name: Session(name) for name in names}
    (crop,) = {card_of(name)["inputs"][0]["image"]["crop"] for name in names}
    cases = []
    for path in sorted(path for folder in (PHOTOS, VIEWS) for path in folder.iterdir() if path.suffix != ".md"):
        found = views(Image.open(path), crop)
        scores = {category: category_score(by, sessions, found) for category, by in CATEGORIES.items()}
        cases.append(
            {
                "file": str(path.relative_to(PHOTOS.parent)),
                "frames": getattr(Image.open(path), "n_frames", 1),
                "views": [view for view, _ in found],
                **scores,
            }
        )
    return cases


def quadrants(pixels: np.ndarray) -> list[list[float]]:
    """Returns the mean R, G and B of each quarter, in levels of 0 to 255.

    The order is top left, top right, bottom left, bottom right.
    """
    quarters = pixels.reshape(2, 112, 2, 112, 3).mean(axis=(1, 3)).reshape(4, 3)
    return [[round(level, 3) for level in quarter] for quarter in quarters.tolist()]


def ranked(probabilities: np.ndarray, labels: list[str]) -> list[dict]:
    """Returns the most likely labels, best first."""
    best = np.argsort(-probabilities, kind="stable")[:TOP]
    return [
        {"index": int(index), "name": labels[index], "score": numbers(probabilities[index])[0]}
        for index in best
    ]


def image_golden(name: str) -> dict:
    """Returns the outputs of an image model for the synthetic tensors and the photos."""
    image = card_of(name)["inputs"][0]["image"]
    labels = labels_of(name)
    session = Session(name)
    tensors = [
        {"formula": formula, "probs": numbers(session.run(synthetic(formula, image))[0])}
        for formula in ("noise", "bands")
    ]
    photos = []
    for path in sorted(path for path in PHOTOS.iterdir() if path.suffix != ".md"):
        photo = upright(Image.open(path))
        box, pixels = cropped(photo, image["crop"])
        probabilities = session.run(normalised(pixels, image).transpose(2, 0, 1)[None])[0]
        photos.append(
            {
                "file": path.name,
                "size": list(photo.size),
                "crop": box,
                "quadrants": quadrants(pixels),
                "top": ranked(probabilities, labels),
            }
        )
    return {"model": name, "sha256": session.sha256, **TOLERANCES, "tensors": tensors, "photos": photos}


def golden() -> dict:
    """Returns the content of the file."""
    return {
        "made_by": "tests/scripts/golden.py",
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "pillow": PIL.__version__,
            "numpy": np.__version__,
        },
        "text": text_golden(),
        "images": [image_golden(name) for name in IMAGE_MODELS],
        "views": view_golden(),
    }


def to_text(values: dict) -> str:
    """Formats JSON with each array of numbers on one line."""
    text = json.dumps(values, ensure_ascii=False, indent=1) + "\n"
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda array: " ".join(array[0].split()), text)


def agree(fresh: object, stored: object) -> bool:
    """Returns True if two JSON values are equal, with a tolerance of ROUNDING for fractions."""
    if isinstance(fresh, dict) and isinstance(stored, dict):
        return fresh.keys() == stored.keys() and all(agree(fresh[key], stored[key]) for key in fresh)
    if isinstance(fresh, list) and isinstance(stored, list):
        return len(fresh) == len(stored) and all(map(agree, fresh, stored))
    if isinstance(fresh, float) and isinstance(stored, float):
        return abs(fresh - stored) <= ROUNDING
    return type(fresh) is type(stored) and fresh == stored


def main() -> int:
    """Writes or checks the file. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the file and write nothing")
    arguments = parser.parse_args()
    fresh = to_text(golden())
    if not arguments.check:
        GOLDEN.write_text(fresh, encoding="utf-8")
        print(f"{GOLDEN.relative_to(ROOT)}: {len(fresh.encode()):,} bytes")
    elif not GOLDEN.is_file() or not agree(json.loads(fresh), json.loads(GOLDEN.read_text(encoding="utf-8"))):
        print(f"{GOLDEN.relative_to(ROOT)} is out of date: run tests/scripts/golden.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
