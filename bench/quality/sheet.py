"""Lay a run's pictures out: a row a drag, its source, everybody's picture, the truth."""

import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image

from dragnoise.engine.cli.drawing import sheet, with_points
from dragnoise.engine.inputs.image import Image
from dragnoise.engine.inputs.points import Points
from dragnoise.engine.system.files import write_whole

from .document import Document, drags, kinds

__all__ = ["draw_sheet", "one_of_each"]

_TILES_PX = (128, 112, 96, 80, 64)
"""Sides of a picture in a sheet: the first with which the file is small enough is used."""

_SOURCE_PX = 128


def one_of_each(document: Document, wanted: Sequence[str] = ()) -> list[str]:
    """Return the drag with the lowest number of each kind: nobody picks what looks best.

    Args:
        document: The run.
        wanted: Kinds; those that the run does not have are left out; none: all.
    """
    present = kinds(document)
    chosen = [kind for kind in wanted if kind in present] or present
    return [min(drags(document, kind), key=_number) for kind in chosen]


def _number(name: str) -> tuple[int, str]:
    found = re.search(r"\d+$", name)
    return int(found[0]) if found else 0, name


def draw_sheet(
    document: Document,
    pictures: Path,
    target: Path,
    names: Sequence[str],
    shown: Sequence[str],
    at_most_bytes: int | None = None,
    last: str = "truth",
) -> Path:
    """Write a PNG: source with the drag (what must stay is dimmed), contestants, truth.

    Args:
        document: The run.
        pictures: Holds a folder for each drag.
        target: The file.
        names: Of the drags, a row each; at least one.
        shown: The contestants, a column each.
        at_most_bytes: Of the file, as far as smaller pictures can make it so.
        last: What the last column shows.
    """
    few = _shrunk(document, pictures, names, ["source", *shown, last], at_most_bytes)
    return write_whole(target, lambda path: path.write_bytes(few))


def _shrunk(
    document: Document,
    pictures: Path,
    names: Sequence[str],
    headings: Sequence[str],
    at_most_bytes: int | None,
) -> bytes:
    """Return a sheet as PNG of 256 colours, its pictures as large as the bound allows."""
    columns = [
        [_asked(document["drags"][name], pictures / name) for name in names],
        *([_read(pictures / name / f"{each}.png") for name in names] for each in headings[1:-1]),
        [_read(pictures / name / "after.png") for name in names],
    ]
    titles = [name.partition("-")[2] or name for name in names]  # the lot is the same for all
    content = b""
    for side in _TILES_PX:
        tiles = [[_tile(picture, side) for picture in column] for column in columns]
        page = sheet(tiles, headings, titles).to_pil().convert("RGB")
        content = _png(page)
        if at_most_bytes is None or len(content) <= at_most_bytes:
            break
    return content


def _png(page: PIL.Image.Image) -> bytes:
    content = io.BytesIO()
    few = page.quantize(256, method=PIL.Image.Quantize.FASTOCTREE, dither=PIL.Image.Dither.NONE)
    few.save(content, "png", optimize=True)
    return content.getvalue()


def _asked(drag: Document, folder: Path) -> PIL.Image.Image:
    """Return the source with its drag; what may not change in half of its brightness."""
    pixels = np.asarray(_read(folder / "before.png"))
    editable = np.asarray(_read(folder / "mask.png").convert("L")) > 0
    dimmed = np.where(editable[..., None], pixels, pixels // 2)
    return with_points(Image.of(dimmed), Points(drag["handles"], drag["targets"]))


def _read(path: Path) -> PIL.Image.Image:
    """Return a picture; plain grey where there is none."""
    if not path.is_file():
        return PIL.Image.new("RGB", (_SOURCE_PX, _SOURCE_PX), (128, 128, 128))
    with PIL.Image.open(path) as picture:
        return picture.convert("RGB")


def _tile(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    return picture.resize((side, side), PIL.Image.Resampling.LANCZOS)
