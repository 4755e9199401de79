"""Draw pictures of kinds that the embedded model was not trained on."""

from collections.abc import Iterator

import numpy as np
import PIL.Image
import PIL.ImageDraw

from dragnoise.engine import Image

__all__ = ["unknown_pictures"]

_ENLARGED = 4
_RING_COLOURS = ((190, 40, 40), (40, 110, 60), (40, 60, 150), (230, 170, 30))


def unknown_pictures(side: int) -> Iterator[tuple[str, str, Image]]:
    """Yield (name, prompt, picture) of four kinds; pictures are `side` x `side` pixels."""
    yield "checks", "a chessboard", _checks(side)
    yield "waves", "waves of cloth", _waves(side)
    yield "rings", "four coloured rings", _rings(side)
    yield "face", "a face", _face(side)


def _checks(side: int) -> Image:
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    checks = ((across * 8).astype(int) + (down * 8).astype(int)) % 2
    colours = [60 + 150 * checks, 80 + 90 * checks, 120 - 60 * checks]
    return Image(np.stack(colours, 2).astype(np.uint8))


def _waves(side: int) -> Image:
    across, down = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    waves = 0.5 + 0.5 * np.sin(18 * across + 6 * np.sin(7 * down))
    colours = [200 * waves, 90 + 60 * waves, 160 * (1 - waves) + 40]
    return Image(np.stack(colours, 2).astype(np.uint8))


def _rings(side: int) -> Image:
    drawn = PIL.Image.new("RGB", (_ENLARGED * side, _ENLARGED * side), (225, 220, 205))
    pen = PIL.ImageDraw.Draw(drawn)
    for place, colour in enumerate(_RING_COLOURS):
        x = (place % 2) * 2 * side
        y = (place // 2) * 2 * side
        near = side // 4
        far = 7 * side // 4
        pen.ellipse((x + near, y + near, x + far, y + far), fill=colour)
        near = 3 * side // 4
        far = 5 * side // 4
        pen.rectangle((x + near, y + near, x + far, y + far), fill=(240, 240, 240))
    return _reduced(drawn, side)


def _face(side: int) -> Image:
    drawn = PIL.Image.new("RGB", (_ENLARGED * side, _ENLARGED * side), (90, 130, 170))
    pen = PIL.ImageDraw.Draw(drawn)
    pen.ellipse((side, side // 2, 3 * side, 7 * side // 2), fill=(235, 190, 150))
    for eye in (3 * side // 2, 5 * side // 2):
        around = (eye - side // 5, 3 * side // 2, eye + side // 5, 19 * side // 10)
        pen.ellipse(around, fill=(30, 30, 40))
    around = (3 * side // 2, 2 * side, 5 * side // 2, 3 * side)
    pen.arc(around, 20, 160, fill=(150, 40, 50), width=side // 8)
    return _reduced(drawn, side)


def _reduced(drawn: PIL.Image.Image, side: int) -> Image:
    return Image(np.asarray(drawn.resize((side, side), PIL.Image.Resampling.LANCZOS)))
