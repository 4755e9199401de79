"""Pictures of drags: points on an image, sheets of several edits, animations."""

import math
from collections.abc import Sequence

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ..inputs.image import Image
from ..inputs.points import Points

__all__ = ["enlarge", "sheet", "with_points"]

_HANDLE, _TARGET, _EDGE = (225, 40, 40), (40, 90, 235), (255, 255, 255)
_GAP, _CAPTION = 6, 18


def enlarge(image: Image, at_least: int = 256) -> PIL.Image.Image:
    """The picture, enlarged by a whole factor until its longer side has `at_least` pixels."""
    factor = max(1, math.ceil(at_least / max(image.width, image.height)))
    return image.to_pil().resize(
        (image.width * factor, image.height * factor), PIL.Image.Resampling.BICUBIC
    )


def with_points(image: Image, points: Points, at_least: int = 256) -> PIL.Image.Image:
    """The enlarged picture with an arrow from every handle (red) to its target (blue)."""
    picture = enlarge(image, at_least)
    factor = picture.width / image.width
    draw = PIL.ImageDraw.Draw(picture)
    radius = max(3.0, max(picture.size) / 90)
    for handle, target in zip(points.handles, points.targets, strict=True):
        begin, end = (
            tuple((value + 0.5) * factor for value in point) for point in (handle, target)
        )
        draw.line((begin, end), fill=_EDGE, width=round(radius * 1.2))
        draw.line((begin, end), fill=_HANDLE, width=max(1, round(radius * 0.5)))
        for (x, y), colour in ((begin, _HANDLE), (end, _TARGET)):
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius),
                fill=colour,
                outline=_EDGE,
                width=max(1, round(radius / 3)),
            )
    return picture


def sheet(
    rows: Sequence[Sequence[PIL.Image.Image]], titles: Sequence[str], across: int = 1
) -> Image:
    """A contact sheet: one row an edit, a title over every column; `across` edits stand beside each other."""
    width = max(picture.width for row in rows for picture in row)
    height = max(picture.height for row in rows for picture in row)
    columns, lines = len(titles) * across, math.ceil(len(rows) / across)
    page = PIL.Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, lines * (height + _GAP) + _GAP + _CAPTION), "white"
    )
    draw, font = PIL.ImageDraw.Draw(page), PIL.ImageFont.load_default(13)
    for column in range(columns):
        draw.text(
            (_GAP + column * (width + _GAP), 3),
            titles[column % len(titles)],
            fill="black",
            font=font,
        )
    for number, row in enumerate(rows):
        line, block = divmod(number, across)
        for place, picture in enumerate(row):
            column = block * len(titles) + place
            page.paste(
                picture, (_GAP + column * (width + _GAP), _CAPTION + _GAP + line * (height + _GAP))
            )
    return Image.of(page)
