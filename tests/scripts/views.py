"""Draw tests/data/views: animations and long images, mostly with content outside the first square.

The content is a detail of tests/data/photos/coffee.jpg, on grey. The image model of moderation
scores it 0.98 as sexual, and grey 0.03. Needs only Pillow.

    pip install -r tests/scripts/requirements.txt
    python tests/scripts/views.py
"""

from pathlib import Path

from PIL import Image

DATA = Path(__file__).resolve().parents[1] / "data"
VIEWS = DATA / "views"
GREY = (128, 128, 128)
SIDE = 96

coffee = Image.open(DATA / "photos" / "coffee.jpg").convert("RGB")
coffee = coffee.crop((181, 34, 296, 149)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def canvas(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """Returns a grey image."""
    return Image.new("RGB", (width, height), GREY)


def showing(at: tuple[int, int], width: int = SIDE, height: int = SIDE, side: int = SIDE) -> Image.Image:
    """Returns a grey image with the detail at a position."""
    image = canvas(width, height)
    image.paste(coffee.resize((side, side), Image.Resampling.BICUBIC), at)
    return image


def animation(frames: list[Image.Image], name: str, **options: object) -> None:
    """Writes frames of 0.1 s each.

    One pixel differs in each, because Pillow merges equal neighbours in GIF and APNG.
    """
    for index, frame in enumerate(frames):
        frame.putpixel((index % frame.width, frame.height - 1), (index, 0, 0))
    frames[0].save(VIEWS / name, save_all=True, append_images=frames[1:], duration=100, loop=0, **options)


def main() -> None:
    """Draws all files."""
    VIEWS.mkdir(exist_ok=True)
    for name, options in [
        ("second-frame.gif", {}),
        ("second-frame.png", {}),
        ("second-frame.webp", {"lossless": True}),
        ("second-frame-lossy.webp", {"quality": 80}),
    ]:
        animation([canvas(), showing((0, 0))], name, **options)
    # The second frame covers a part of the canvas, and is disposed to the previous one.
    animation([showing((0, 0)), showing((48, 48), side=48), canvas()], "disposed.gif", disposal=[1, 3, 2])
    animation([canvas(), canvas(), showing((0, 0))], "cover.png", default_image=True)
    # The blank frame has the higher score of the two.
    rocket = Image.open(DATA / "photos" / "rocket.jpg").convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    canvas().save(VIEWS / "blank-then-rocket.gif", save_all=True, append_images=[rocket], duration=100, loop=0)
    for name, options in [("sixty-frames.gif", {}), ("sixty-frames.png", {}), ("sixty-frames.webp", {"lossless": True})]:
        animation([showing((0, 0)) if index == 59 else canvas() for index in range(60)], name, **options)
    animation([canvas(170, SIDE), showing((74, 0), 170)], "second-frame-wide.gif")
    showing((170 - SIDE, 0), 170).save(VIEWS / "wide.png")
    showing((0, 0), SIDE, 4 * SIDE).save(VIEWS / "tall-top.png")
    showing((0, 240), 60, 300, side=60).save(VIEWS / "tall-bottom.jpg", quality=90)
    showing((400, 0), 12 * SIDE).save(VIEWS / "panorama.png")


if __name__ == "__main__":
    main()
