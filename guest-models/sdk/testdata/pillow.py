"""Writes pillow.rgb, patterns resized by Pillow, the reference for `Recipe::resize`, and two JPEGs.

    pip install pillow==12.0.0 numpy && python pillow.py

Each case is 24x24 RGB, 1,728 bytes, in the order of CASES (which recipe_tests.rs repeats).
"""
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# width, height, share of the shorter side, filter, EXIF orientation
CASES = [
    (301, 200, 0.875, Image.BICUBIC, 1),
    (150, 401, 1.0, Image.BILINEAR, 1),
    (20, 31, 1.0, Image.BICUBIC, 1),
    (97, 64, 0.875, Image.LANCZOS, 1),
    (24, 24, 1.0, Image.BICUBIC, 1),
    (120, 81, 0.75, Image.BICUBIC, 6),
    (81, 120, 0.75, Image.BICUBIC, 7),
    (120, 81, 0.75, Image.BICUBIC, 3),
]


def pattern(width, height):
    y, x = np.mgrid[0:height, 0:width]
    channels = np.stack([x * x + 3 * y, x * y, x ^ y], axis=-1)
    # Far from 0 and 255, so that overshoot is not cut: Pillow resizes along x first, the guest
    # along y.
    return (40 + channels % 176).astype(np.uint8)


def case(width, height, share, resample, orientation):
    image = Image.fromarray(pattern(width, height))
    image.getexif()[0x0112] = orientation
    image = ImageOps.exif_transpose(image)
    side = int(min(image.size) * share)
    left, top = ((size - side) // 2 for size in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((24, 24), resample)
    return np.asarray(image).tobytes()


Path(__file__).with_name("pillow.rgb").write_bytes(b"".join(case(*c) for c in CASES))

# Files for image/jpeg_tests.rs: 64x48, with a restart marker after every second unit.
photo = Image.open(Path(__file__).parent / "../../../tests/data/photos/coffee.jpg").convert("RGB").crop((220, 60, 284, 108))
for name, is_progressive in [("restarts.jpg", False), ("restarts-progressive.jpg", True)]:
    photo.save(Path(__file__).with_name(name), quality=80, progressive=is_progressive, restart_marker_blocks=2)
