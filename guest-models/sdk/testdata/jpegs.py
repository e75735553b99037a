"""Writes jpegs.bin, JPEG files with their pixels by libjpeg, the reference for `sdk/image/jpeg.rs`.

    pip install pillow==13.0.0 numpy && python jpegs.py

Each case: the length of the file as 32 bits (little endian), the file, and its pixels as RGB, row
by row, at the scales 1, 1/2, 1/4 and 1/8. libjpeg-turbo transforms blocks to fewer samples in
another way than the guest, so its scaled pixels are near the guest's and not equal; jpeg_tests.rs
has the bounds.
"""
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
PHOTO = Image.open(HERE / "../../../tests/data/photos/coffee.jpg").convert("RGB").resize((300, 200))


def saved(width, height, mode="RGB", **options):
    picture = PHOTO.crop((110, 30, 110 + width, 30 + height)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=options.pop("quality", 85), **options)
    return file.getvalue()


def sampled(factors, width, height, **options):
    """A file whose luma has other factors, and as many blocks per unit: they lie elsewhere."""
    file = bytearray(saved(width, height, **options))
    for at in range(len(file) - 1):
        if file[at] == 0xFF and file[at + 1] in (0xC0, 0xC2):
            file[at + 11] = factors
            return bytes(file)
    raise ValueError("no frame")


def transformed(number, file):
    """The file, with this number for the transform of its colours: 2 is luma, chroma and black."""
    file = bytearray(file)
    file[file.index(b"Adobe") + 11] = number
    return bytes(file)


def cut_jfif(file):
    """The file, with a JFIF segment that is too short to count."""
    return file[:2] + b"\xff\xe0\0\x09JFIF\0\1\1" + file[2:]


CASES = [
    saved(45, 35, subsampling="4:2:0"),
    saved(45, 35, subsampling="4:2:2"),
    saved(45, 35, subsampling="4:4:4"),
    saved(45, 35, "L"),
    saved(45, 35, keep_rgb=True),
    saved(45, 35, "CMYK"),
    transformed(2, saved(45, 35, "CMYK")),
    saved(45, 35, subsampling="4:2:0", progressive=True),
    saved(45, 35, subsampling="4:4:4", progressive=True, quality=97),
    saved(45, 35, "L", progressive=True),
    saved(45, 35, subsampling="4:2:0", restart_marker_blocks=2),
    saved(45, 35, subsampling="4:2:2", restart_marker_blocks=3, progressive=True),
    sampled(0x12, 32, 16, subsampling="4:2:2"),
    sampled(0x41, 61, 29, subsampling="4:2:0"),
    sampled(0x14, 61, 29, subsampling="4:2:0", progressive=True),
    saved(1, 40, subsampling="4:2:0"),
    saved(40, 1, subsampling="4:2:0", progressive=True),
    saved(3, 5, subsampling="4:2:0"),
    saved(1, 1, subsampling="4:2:2"),
    saved(64, 48, subsampling="4:2:0", quality=40),
    transformed(1, saved(45, 35, "CMYK")),
    transformed(0, saved(45, 35, "CMYK")),
    transformed(1, saved(45, 35, keep_rgb=True)),
    cut_jfif(saved(45, 35, keep_rgb=True)),
]


def pixels(file, divisor):
    picture = Image.open(io.BytesIO(file))
    width, height = (-(-side // divisor) for side in picture.size)
    # Pillow takes the largest divisor whose picture is not smaller than asked.
    picture.draft(None, tuple(max(1, side // divisor) for side in picture.size))
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.BOX)
    return np.asarray(picture.convert("RGB")).tobytes()


out = bytearray()
for file in CASES:
    out += struct.pack("<I", len(file)) + file
    for divisor in (1, 2, 4, 8):
        out += pixels(file, divisor)
(HERE / "jpegs.bin").write_bytes(out)
