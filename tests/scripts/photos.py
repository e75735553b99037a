"""Make the photos in tests/data/photos from the sample photos of the package scikit-image.

All sources are in the public domain or CC0; tests/data/photos/README.md lists them. The ten files
cover the formats of the decoder: baseline and progressive JPEG, chroma at full, half and quarter
resolution, one channel, EXIF orientation, PNG with and without alpha, lossy WebP, an animated GIF,
and an image of two megapixels.

    pip install -r weights/convert/requirements.txt
    python tests/scripts/photos.py

Another build of Pillow may encode other bytes, which changes the golden values: run golden.py
afterwards.
"""

import argparse
import hashlib
import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "weights" / "convert"))
import fetch  # noqa: E402  (the folder has to be on the path first)

ORIENTATION = 0x0112  # the EXIF tag
ROTATED_LEFT = 6  # rotate by 90 degrees clockwise for display

JPEG_444, JPEG_422, JPEG_420 = 0, 1, 2  # Pillow's numbers for chroma at full, half and quarter resolution


class Source:
    """Returns the sample photos of the scikit-image wheel."""

    def __init__(self, cache: Path) -> None:
        self.wheel = fetch.fetch("scikit-image", cache)

    def read(self, name: str) -> bytes:
        """Returns the file's bytes."""
        return fetch.read_member(self.wheel, f"skimage/data/{name}")

    def image(self, name: str) -> Image.Image:
        """Returns the file's pixels."""
        return Image.open(io.BytesIO(self.read(name)))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    """Encodes an image in a format, by Pillow's name."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def sideways(image: Image.Image) -> bytes:
    """Encodes a JPEG rotated by 90 degrees to the left, with the EXIF tag that corrects it.

    Phones store upright photos like this.
    """
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED_LEFT
    return encoded(
        image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, subsampling=JPEG_444, exif=exif
    )


def vignette(image: Image.Image) -> bytes:
    """Encodes a PNG whose alpha falls from opaque in the centre to transparent in the corners."""
    small = image.convert("RGB").resize((320, 213), Image.Resampling.BICUBIC)
    # Pillow's radial gradient, 256 by 256, is 0 in the centre and 255 from a radius of about 181.
    alpha = Image.radial_gradient("L").resize(small.size).point(lambda value: 255 - value)
    small.putalpha(alpha)
    return encoded(small, "PNG", optimize=True)


def animation(first: Image.Image, second: Image.Image) -> bytes:
    """Encodes a GIF of two different frames, so that a test can tell which one was used."""
    frames = [
        frame.convert("RGB").resize((300, 200), Image.Resampling.BICUBIC).quantize(128)
        for frame in (first, second)
    ]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=500, loop=0)


def make(source: Source) -> dict[str, bytes]:
    """Returns the bytes of all photos by file name."""
    coffee, chelsea = source.image("coffee.png"), source.image("chelsea.png")
    portrait = source.image("astronaut.png").crop((60, 0, 407, 511))
    return {
        "coffee.jpg": encoded(coffee, "JPEG", quality=90, subsampling=JPEG_420),
        "coffee-orientation-6.jpg": sideways(coffee),
        "camera-grey.jpg": encoded(source.image("camera.png"), "JPEG", quality=85),
        "astronaut-progressive.jpg": encoded(
            portrait, "JPEG", quality=88, progressive=True, subsampling=JPEG_422
        ),
        "rocket.jpg": source.read("rocket.jpg"),
        "retina-large.jpg": source.read("retina.jpg"),
        "clock-grey.png": source.read("clock_motion.png"),
        "rocket-alpha.png": vignette(source.image("rocket.jpg")),
        "chelsea.webp": encoded(chelsea, "WEBP", quality=85, method=6),
        "chelsea-animated.gif": animation(chelsea, coffee),
    }


def main() -> None:
    """Writes the photos, and prints their hashes and sizes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--cache", type=Path, default=fetch.default_cache(), help="folder of packages (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "tests" / "data" / "photos", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, data in make(Source(arguments.cache)).items():
        (arguments.out / name).write_bytes(data)
        print(f"{hashlib.sha256(data).hexdigest()}  {name}  {len(data):,} bytes")


if __name__ == "__main__":
    main()
