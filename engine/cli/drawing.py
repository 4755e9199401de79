"""Pictures of drags: points on an image, and sheets of several edits."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from ..inputs.image import Image
from ..inputs.points import Point, Points

__all__ = ["MARKERS", "enlarge", "sheet", "with_points"]

Colour: TypeAlias = tuple[int, int, int]

_HANDLE: Colour = (225, 40, 40)
_TARGET: Colour = (40, 90, 235)
_EDGE: Colour = (255, 255, 255)
MARKERS = (_HANDLE, _TARGET, _EDGE)
"""The colours that points are drawn in."""

_SIDE_PX = 256
_GAP_PX = 6
_FONT_PX = 15


def enlarge(image: Image, at_least: int = _SIDE_PX) -> PIL.Image.Image:
    """Return the picture, enlarged by a whole factor.

    at_least: pixels that the longer side has afterwards.
    """
    factor = max(1, math.ceil(at_least / max(image.width, image.height)))
    size = (image.width * factor, image.height * factor)
    return image.to_pil().resize(size, PIL.Image.Resampling.BICUBIC)


def with_points(image: Image, points: Points, at_least: int = _SIDE_PX) -> PIL.Image.Image:
    """Return the enlarged picture with a line from every handle (red) to its target (blue)."""
    picture = enlarge(image, at_least)
    factor = picture.width / image.width
    draw = PIL.ImageDraw.Draw(picture)
    radius = max(3.0, max(picture.size) / 60)
    for handle, target in zip(points.handles, points.targets, strict=True):
        begin = _centre(handle, factor)
        end = _centre(target, factor)
        draw.line((begin, end), fill=_EDGE, width=round(radius * 1.2))
        draw.line((begin, end), fill=_HANDLE, width=max(1, round(radius * 0.5)))
        _dot(draw, end, radius, _TARGET)
        _dot(draw, begin, radius, _HANDLE)
    return picture


def _centre(point: Point, factor: float) -> Point:
    """Return the middle of a pixel in the enlarged picture."""
    x, y = point
    return (x + 0.5) * factor, (y + 0.5) * factor


def _dot(draw: PIL.ImageDraw.ImageDraw, centre: Point, radius: float, colour: Colour) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    draw.ellipse(box, fill=colour, outline=_EDGE, width=max(1, round(radius / 3)))


def sheet(
    columns: Sequence[Sequence[PIL.Image.Image]],
    names: Sequence[str],
    titles: Sequence[str],
    notes: Sequence[Sequence[str]] = (),
) -> Image:
    """Return a contact sheet: one column an edit, one row what the titles say.

    Args:
        columns: of each edit, one picture a row.
        names: of the edits, over their columns.
        titles: of the rows, on their left; in several lines where they have several.
        notes: lines under each column.
    """
    font = PIL.ImageFont.load_default(_FONT_PX)
    lengths = [font.getlength(line) for title in titles for line in title.split("\n")]
    left = math.ceil(max(lengths)) + 2 * _GAP_PX
    top = 2 * _FONT_PX
    width = max(picture.width for column in columns for picture in column)
    height = max(picture.height for column in columns for picture in column)
    across = left + len(columns) * (width + _GAP_PX)
    lines = max((len(note) for note in notes), default=0)
    under = top + len(titles) * (height + _GAP_PX)
    down = under + lines * (_FONT_PX + _GAP_PX)
    page = PIL.Image.new("RGB", (across, down), "white")
    draw = PIL.ImageDraw.Draw(page)
    for row, title in enumerate(titles):
        middle = top + row * (height + _GAP_PX) + height // 2
        place = (left - _GAP_PX, middle)
        draw.text(place, title, fill="black", font=font, anchor="rm", align="right")
    for number, (name, column) in enumerate(zip(names, columns, strict=True)):
        x = left + number * (width + _GAP_PX)
        draw.text((x + width // 2, top // 2), name, fill="black", font=font, anchor="mm")
        for row, picture in enumerate(column):
            page.paste(picture, (x, top + row * (height + _GAP_PX)))
    for number, note in enumerate(notes):
        x = left + number * (width + _GAP_PX) + width // 2
        for line, text in enumerate(note):
            y = under + line * (_FONT_PX + _GAP_PX) + _FONT_PX // 2
            draw.text((x, y), text, fill="black", font=font, anchor="mm")
    return Image.of(page)
