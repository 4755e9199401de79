"""Lay the samples' pictures out: what was asked, and what became of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from dragnoise.engine.cli.drawing import sheet, with_points
from dragnoise.engine.inputs.image import Image

from ..jobs.run import FAILED
from .asked import Asked
from .judge import EDITED
from .samples import Sample, read_sample

__all__ = ["write_sheets"]

_SIDE_PX = 256
_A_SHEET = 6


def write_sheets(asked: Asked, results: Mapping[str, Mapping[str, Any]]) -> list[Path]:
    """Write contact sheets of every category's edits, six samples each; return their files."""
    folder = asked.out / "sheets"
    folder.mkdir(exist_ok=True)
    categories: dict[str, list[str]] = {}
    for name, result in results.items():
        if FAILED not in result:
            categories.setdefault(name.partition("/")[0], []).append(name)
    return [
        _sheet(asked, results, part).save(folder / f"{category}-{number}.png")
        for category, names in categories.items()
        for number, part in enumerate(_parts(names), 1)
    ]


def _parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), _A_SHEET):
        yield names[first : first + _A_SHEET]


def _sheet(asked: Asked, results: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Image:
    samples = [read_sample(asked.root, name, asked.converted) for name in names]
    columns = [[_drag(sample), _small(Image.of(asked.picture(sample.name)))] for sample in samples]
    titles = ("asked", asked.method)
    notes = [_note(results[name]) for name in names]
    return sheet(columns, [name.partition("/")[2] for name in names], titles, notes)


def _drag(sample: Sample) -> PIL.Image.Image:
    """Return the picture with its drags, what may not change in half of its brightness."""
    pixels = sample.image.pixels
    dimmed = np.where(sample.mask.editable[..., None], pixels, pixels // 2)
    return _fitted(with_points(Image(dimmed), sample.points))


def _small(image: Image) -> PIL.Image.Image:
    return _fitted(image.to_pil())


def _fitted(picture: PIL.Image.Image) -> PIL.Image.Image:
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    return picture


def _note(result: Mapping[str, Any]) -> list[str]:
    distances = result[EDITED].get("distances_px")
    seconds = f"{result['times_ms']['total'] / 1e3:.1f} s"
    if not distances:
        return [seconds]
    return [f"{sum(distances) / len(distances):.1f} px from the target, {seconds}"]
