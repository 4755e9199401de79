"""Draw the observation: heat maps of its figures, and grids of its pictures."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import numpy as np
import PIL.Image
from matplotlib import pyplot

from dragnoise.engine import Image
from dragnoise.engine.cli.drawing import sheet
from dragnoise.engine.system.files import write_whole

from .distances import SHARED
from .study import Study

__all__ = ["draw_grids", "draw_heat"]

_TILE_PX = 80
"""The longer side of a picture in a grid."""

_COLUMNS = 6
"""At most so many start steps stand in a grid."""


class _Panel(NamedTuple):
    """A row of heat maps, one for every measure.

    Attributes:
        source: What was held.
        ending: Of the measures' names.
        title: What the row shows.
        colours: Matplotlib's name of the scale.
    """

    source: str
    ending: str
    title: str
    colours: str


_PANELS = (
    _Panel("own", "", "own held", "magma_r"),
    _Panel("other", "", "another picture's held", "magma_r"),
    _Panel("zeros", "", "zeros held", "magma_r"),
    _Panel("other", "_share", "another's held: 0 own picture, 1 the other", "coolwarm"),
)

_UNITS: Mapping[str, str] = {
    "pixels": "mean difference of 255",
    "structure": "1 - SSIM",
    "colour": "histograms' distance of 255",
}


def draw_heat(document: Mapping[str, Any], target: Path) -> Path:
    """Write a PNG of heat maps, block by start step: a row a source, a column a measure.

    Every map of distances has a scale of its own; the line stands where a drag happens.

    Args:
        document: The record.
        target: The file.
    """
    maps = document["maps"]
    panels = [panel for panel in _PANELS if panel.source in maps]
    size = (4.6 * len(SHARED), 2.9 * len(panels) + 0.4)
    figure, grid = pyplot.subplots(len(panels), len(SHARED), figsize=size, squeeze=False)
    for measure, column in zip(SHARED, grid.T, strict=True):
        for panel, axes in zip(panels, column, strict=True):
            table = maps[panel.source][measure + panel.ending]
            _draw_map(axes, table, panel)
            _label_steps(axes, document)
            unit = measure if panel.ending else _UNITS[measure]
            axes.set_title(f"{panel.title} ({unit})", fontsize=9)
    names = ", ".join(picture["name"] for picture in document["pictures"])
    figure.suptitle(f"{document['model']}, {document['steps']} steps, {names}", fontsize=11)
    figure.tight_layout()
    content = io.BytesIO()
    figure.savefig(content, dpi=80)
    pyplot.close(figure)
    return _write(PIL.Image.open(content), target)


def _draw_map(axes: Any, table: Mapping[str, Sequence[float]], panel: _Panel) -> None:
    """Draw one map with its numbers."""
    values = np.array(list(table.values()))
    top = 1.0 if panel.ending else float(values.max()) or 1.0
    axes.imshow(values, cmap=panel.colours, vmin=0, vmax=top, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        middle = 0.2 < value < 0.8 if panel.ending else value < 0.45 * top
        axes.text(
            column,
            row,
            _short(value),
            ha="center",
            va="center",
            fontsize=7,
            color="black" if middle else "white",
        )
    axes.set_yticks(range(len(table)), list(table), fontsize=8)


def _short(value: float) -> str:
    """Return a figure in at most four characters: 23, 1.2, .12, .003; 0 for nothing at all."""
    if value == 0:
        return "0"
    digits = next(digits for digits, least in enumerate((9.95, 0.995, 0.0995, 0)) if value >= least)
    return f"{value:.{digits}f}".lstrip("0")


def _label_steps(axes: Any, document: Mapping[str, Any]) -> None:
    """Name the start steps under a map, and draw a line where a drag happens."""
    starts = document["starts"]
    axes.set_xticks(range(len(starts)), starts, fontsize=8)
    axes.set_xlabel("held from step", fontsize=8)
    place = np.interp(document["drag_step"], starts, range(len(starts)))
    axes.axvline(place, color="#2288ff", linewidth=0.8, linestyle="--")


def draw_grids(study: Study, stem: Path) -> Iterator[Path]:
    """Write a PNG of the first picture for every source; yield their files.

    A row is a block, a column a start step. Above them all is the reconstruction with nothing held,
    below, where another's features were held, the other's.

    Args:
        study: What was observed.
        stem: The files' path, to which the source's name is added.
    """
    starts = study.starts[:: math.ceil(len(study.starts) / _COLUMNS)]
    names = [f"from {start}" for start in starts]
    plain = _tile(study.rebuilt[0].image)
    for source in dict.fromkeys(cell.source for cell in study.cells):
        cells = [cell for cell in study.cells if cell.source == source]
        blocks = list(dict.fromkeys(cell.block for cell in cells))
        pictures = {(cell.block, cell.start): _tile(cell.image) for cell in cells}
        last = {"the other": _tile(study.other(0).image)} if source == "other" else {}
        columns = [
            [plain, *(pictures[block, start] for block in blocks), *last.values()]
            for start in starts
        ]
        picture = sheet(columns, names, ("nothing held", *blocks, *last)).to_pil()
        yield _write(picture, Path(f"{stem}-{source}.png"))


def _tile(image: Image) -> PIL.Image.Image:
    picture = image.to_pil()
    picture.thumbnail((_TILE_PX, _TILE_PX), PIL.Image.Resampling.LANCZOS)
    return picture


def _write(picture: PIL.Image.Image, target: Path) -> Path:
    """Write a PNG of 256 colours, whole or not at all."""
    few = picture.convert("RGB").quantize(256, kmeans=2, dither=PIL.Image.Dither.NONE)
    return write_whole(target, lambda part: few.save(part, "png", optimize=True))
