"""Write tests/data/ocr: images with text, and the texts that PP-OCR models read in them.

It uses no code of the server: Pillow draws the images and resizes, numpy finds the boxes and
decodes, Python's onnxruntime runs the models. The models come from PyPI rapidocr 3.10.0, by hash.

Detection. The image is resized (bilinear, antialiased) so that its longer side is at most MAX_SIDE
and both sides are multiples of 32, rounded to the nearest, at least 32. BGR, (v - 127.5) / 127.5,
NCHW. The output is the probability that a pixel is text. Pixels above PIXEL form regions, joined
also at their corners. A region counts if its mean probability is at least BOX and both sides of its
bounding box are at least 3 pixels. The bounding box grows on each side by area * GROW / perimeter,
and is scaled to the image, rounded outwards.

Order. From the top, boxes form a line if their centre is within the height of the line's first box;
in a line they are ordered from the left.

Recognition. Each box is cut out, resized to a height of 48 (bilinear, antialiased; the width
rounded up, at most MAX_WIDTH), normalised as above, and filled up with 0 on the right to a width of
320. The likeliest character of each step is taken; repeated ones count once, and blanks not at all.
The score is the mean probability of the characters taken; a text below READ is dropped.

    pip install -r weights/convert/requirements.txt
    python tests/scripts/ocr.py           # write the images and golden.json
    python tests/scripts/ocr.py --check   # compare with golden.json
"""

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont, ImageOps

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data" / "ocr"
PHOTOS = ROOT / "tests" / "data" / "photos"
GOLDEN = DATA / "golden.json"

sys.path.insert(0, str(ROOT / "weights" / "convert"))

import fetch  # noqa: E402

DETECTOR = (
    "rapidocr/models/PP-OCRv6_det_small.onnx",
    "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
)
READER = (
    "rapidocr/models/PP-OCRv6_rec_small.onnx",
    "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884",
)
MAX_SIDE, MAX_WIDTH, MIN_WIDTH, HEIGHT = 960, 1600, 320, 48
PIXEL, BOX, GROW, READ, MIN_BOX = 0.3, 0.5, 1.6, 0.5, 3


def session(member: tuple[str, str]) -> onnxruntime.InferenceSession:
    """Returns a model of the package on one thread."""
    data = fetch.read_member(fetch.fetch("rapidocr", fetch.default_cache()), member[0])
    if hashlib.sha256(data).hexdigest() != member[1]:
        raise ValueError(f"`{member[0]}`: expected sha256 {member[1]}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def characters(reader: onnxruntime.InferenceSession) -> list[str]:
    """Returns the characters in output order: the blank first, the space last."""
    listed = reader.get_modelmeta().custom_metadata_map["character"].split("\n")
    return ["", *listed, " "]


def tensor(image: Image.Image, size: tuple[int, int], box: list[int]) -> np.ndarray:
    """Returns a part of an image, resized and normalised: f32 (1, 3, height, width), BGR."""
    small = image.crop(box).resize(size, Image.Resampling.BILINEAR)
    values = (np.asarray(small, np.float32)[:, :, ::-1] - np.float32(127.5)) / np.float32(127.5)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def regions(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """Returns the connected pixels (y, x) of a mask, in the order of their first pixels."""
    rest = set(map(tuple, np.argwhere(mask).tolist()))
    found = []
    for first in sorted(rest):
        if first not in rest:
            continue
        rest.discard(first)
        region, stack = [first], [first]
        while stack:
            y, x = stack.pop()
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in rest:
                    rest.discard(near)
                    region.append(near)
                    stack.append(near)
        found.append(region)
    return found


def boxes(detector: onnxruntime.InferenceSession, image: Image.Image) -> list[list[int]]:
    """Returns boxes of text as [left, top, right, bottom], in reading order."""
    scale = min(1.0, MAX_SIDE / max(image.size))
    size = tuple(max(32, math.floor(side * scale / 32 + 0.5) * 32) for side in image.size)
    values = tensor(image, size, [0, 0, *image.size])
    probabilities = detector.run(None, {detector.get_inputs()[0].name: values})[0][0, 0]
    found = []
    for region in regions(probabilities > PIXEL):
        ys, xs = zip(*region)
        left, top, right, bottom = min(xs), min(ys), max(xs) + 1, max(ys) + 1
        width, height = right - left, bottom - top
        mean = float(np.mean([probabilities[y, x] for y, x in region]))
        if mean < BOX or min(width, height) < MIN_BOX:
            continue
        grow = width * height * GROW / (2 * (width + height))
        by, down = image.width / size[0], image.height / size[1]
        found.append(
            [
                max(0, math.floor((left - grow) * by)),
                max(0, math.floor((top - grow) * down)),
                min(image.width, math.ceil((right + grow) * by)),
                min(image.height, math.ceil((bottom + grow) * down)),
            ]
        )
    return ordered(found)


def ordered(found: list[list[int]]) -> list[list[int]]:
    """Returns boxes line by line, each from the left."""
    lines = []
    for box in sorted(found, key=lambda box: (box[1], box[0])):
        centre = (box[1] + box[3]) / 2
        for line in lines:
            if line[0][1] <= centre < line[0][3]:
                line.append(box)
                break
        else:
            lines.append([box])
    return [box for line in lines for box in sorted(line)]


def read(reader, names: list[str], image: Image.Image, box: list[int]) -> tuple[str, float]:
    """Returns the text in a box, and its score."""
    width, height = box[2] - box[0], box[3] - box[1]
    wide = min(MAX_WIDTH, max(1, math.ceil(HEIGHT * width / height)))
    values = tensor(image, (wide, HEIGHT), box)
    values = np.pad(values, ((0, 0), (0, 0), (0, 0), (0, max(0, MIN_WIDTH - wide))))
    steps = reader.run(None, {reader.get_inputs()[0].name: values})[0][0]
    best = steps.argmax(1)
    kept = [step for step, index in enumerate(best) if index and (step == 0 or index != best[step - 1])]
    text = "".join(names[best[step]] for step in kept)
    score = float(np.mean([steps[step, best[step]] for step in kept])) if kept else 0.0
    return text, score


def drawn(size: tuple[int, int], lines: list[str], pixels: int, colors: tuple[str, str], photo=None) -> Image.Image:
    """Returns an image with lines of text in Pillow's own font, with an outline on a photo."""
    image = Image.new("RGB", size, colors[1])
    if photo:
        image = ImageOps.fit(Image.open(PHOTOS / photo).convert("RGB"), size)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(pixels)
    for index, line in enumerate(lines):
        at = (24, 24 + index * pixels * 3 // 2)
        draw.text(at, line, colors[0], font, stroke_width=2 if photo else 0, stroke_fill=colors[1])
    return image


def images() -> dict[str, tuple[Image.Image, list[str]]]:
    """Returns the images and their lines."""
    dark, light = ("black", "white"), ("white", "black")
    plain = ["The library opens at nine"]
    two = ["Bring your own lunch", "and a warm coat"]
    insult = ["You are a stupid idiot"]
    return {
        "plain.png": (drawn((480, 90), plain, 32, dark), plain),
        "two-lines.png": (drawn((480, 160), two, 36, dark), two),
        "small.png": (drawn((320, 64), ["Terms and conditions apply"], 14, dark), ["Terms and conditions apply"]),
        "white-on-black.png": (drawn((480, 90), ["Mind the gap"], 40, light), ["Mind the gap"]),
        "photo.png": (drawn((360, 120), ["Good morning"], 40, light, "rocket.jpg"), ["Good morning"]),
        "insult.png": (drawn((360, 120), insult, 28, light, "rocket.jpg"), insult),
        "no-text.png": (drawn((360, 120), [], 28, light, "rocket.jpg"), []),
    }


def golden() -> dict:
    """Returns the boxes and texts of each image."""
    detector, reader = session(DETECTOR), session(READER)
    names = characters(reader)
    cases = []
    for name, (image, lines) in images().items():
        found = []
        for box in boxes(detector, image):
            text, score = read(reader, names, image, box)
            if score >= READ and text.strip():
                found.append({"text": text, "score": round(score, 4), "box": box})
        cases.append({"file": name, "drawn": lines, "boxes": found})
    return {"made_by": "tests/scripts/ocr.py", "cases": cases}


def main() -> int:
    """Writes or checks the files. Returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the file and write nothing")
    arguments = parser.parse_args()
    fresh = json.dumps(golden(), ensure_ascii=False, indent=1) + "\n"
    if arguments.check:
        return int(fresh != GOLDEN.read_text(encoding="utf-8"))
    DATA.mkdir(exist_ok=True)
    for name, (image, _) in images().items():
        image.save(DATA / name, optimize=True)
    GOLDEN.write_text(fresh, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
