"""Move pixels as a plain editor does, without any model: what every method must beat.

`moved_thing` cuts the dragged things out (a perfect selection) and puts them at their targets,
`moved_mask` moves everything under the mask, `bent` draws the picture along by a smooth field. What
is uncovered gets the nearest background.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..fidelity.pixels import Pixels, Selection
from ..world.drags import Drag, body_of

__all__ = ["Warp", "Warped", "bent", "moved_mask", "moved_thing"]

_Field: TypeAlias = NDArray[np.float64]
"""Displacements (x, y) of every pixel, [H, W, 2]."""

Cell = TypeVar("Cell", np.bool_, np.uint8)

_GRIP_PX = 12.0
_REACH_PX = 24.0
_SWEEPS = 400

_THING_OF: Mapping[str, str] = {"mast": "boat", "bow": "boat", "stern": "boat"}


@dataclass(frozen=True, eq=False)
class Warped:
    """A warped picture.

    Attributes:
        picture: uint8 [H, W, 3], its holes filled.
        holes: bool [H, W], what was uncovered.
    """

    picture: Pixels
    holes: Selection


Warp: TypeAlias = Callable[[Drag], Warped]
"""Moves the pixels of a drag's source."""


def moved_thing(drag: Drag) -> Warped:
    """Move each dragged thing by the mean of its handles' ways; its selection is perfect."""
    picture = drag.before
    holes = np.zeros(picture.shape[:2], np.bool_)
    for thing in drag.things:
        ways = [way for name, way in _ways(drag) if _thing_of(name) == thing]
        if ways:
            body = body_of(drag.scene, (thing,))
            picture, uncovered = _moved(picture, drag.before, body, np.mean(ways, 0))
            holes |= uncovered
    return Warped(picture, holes)


def moved_mask(drag: Drag) -> Warped:
    """Move everything under the mask by the mean of the handles' ways, within the mask."""
    way = np.mean([way for _, way in _ways(drag)], 0)
    picture, holes = _moved(drag.before, drag.before, drag.allowed, way)
    picture = np.where(drag.allowed[..., None], picture, drag.before)
    return Warped(picture, holes & drag.allowed)


def bent(drag: Drag) -> Warped:
    """Draw the picture along by a smooth field: the handles' ways near them, 0 at the mask's rim.

    Between, the field is harmonic. Without a mask it fades out within 24 pixels of the ways.
    """
    allowed = drag.allowed if drag.mask is not None else _near(drag)
    field = _harmonic_field(drag, allowed)
    height, width = allowed.shape
    rows, columns = np.mgrid[0 : height - 0.5 : 0.5, 0 : width - 0.5 : 0.5]
    shift = _sampled(field, columns, rows)
    pixels = _sampled(drag.before.astype(np.float64), columns, rows)
    x = (columns + shift[..., 0]).round().astype(int)
    y = (rows + shift[..., 1]).round().astype(int)
    order = np.argsort(np.hypot(*shift.reshape(-1, 2).T), kind="stable")  # what moves covers
    inside = order[((x >= 0) & (x < width) & (y >= 0) & (y < height)).ravel()[order]]
    picture = np.zeros_like(drag.before)
    holes = np.ones(allowed.shape, np.bool_)
    places = (y.ravel()[inside], x.ravel()[inside])
    picture[places] = pixels.reshape(-1, 3)[inside].round().clip(0, 255)
    holes[places] = False
    picture = np.where(allowed[..., None], _filled(picture, holes), drag.before)
    return Warped(picture, holes & allowed)


def _thing_of(landmark: str) -> str:
    return _THING_OF.get(landmark, landmark.split("_")[0])


def _ways(drag: Drag) -> list[tuple[str, NDArray[np.float64]]]:
    """Return every landmark's way (x, y)."""
    pairs = zip(drag.landmarks, drag.handles, drag.targets, strict=True)
    return [(name, np.subtract(target, handle)) for name, handle, target in pairs]


def _moved(
    onto: Pixels, source: Pixels, selection: Selection, way: NDArray[np.float64]
) -> tuple[Pixels, Selection]:
    """Move selected pixels of a source by whole pixels; return also what is uncovered."""
    right, down = (round(float(value)) for value in way)
    shifted = _shifted(selection, right, down)
    pixels = _shifted(source, right, down)
    holes = selection & ~shifted
    filled = _filled(onto, selection)
    return np.where(shifted[..., None], pixels, filled), holes


def _shifted(values: NDArray[Cell], right: int, down: int) -> NDArray[Cell]:
    """Shift an array by whole pixels; what comes in is zero."""
    height, width = values.shape[:2]
    out = np.zeros_like(values)
    if abs(right) < width and abs(down) < height:
        to = (_span(down, height), _span(right, width))
        out[to] = values[_span(-down, height), _span(-right, width)]
    return out


def _span(shift: int, size: int) -> slice:
    return slice(max(shift, 0), size + min(shift, 0))


def _filled(picture: Pixels, holes: Selection) -> Pixels:
    """Fill holes with their nearest pixels, ring by ring from the border."""
    out = picture.copy()
    missing = holes.copy()
    if missing.all():
        return out
    while missing.any():
        known = ~missing
        for right, down in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            found = missing & _shifted(known, right, down)
            out[found] = _shifted(out, right, down)[found]
            missing = missing & ~found
    return out


def _near(drag: Drag) -> Selection:
    """Return what lies near the handles and their ways, bool [H, W]."""
    near = np.zeros(drag.before.shape[:2], np.bool_)
    for handle, target in zip(drag.handles, drag.targets, strict=True):
        for share in np.linspace(0, 1, 9):
            near |= _disc(
                near.shape, np.add(handle, share * np.subtract(target, handle)), _REACH_PX
            )
    return near


def _disc(shape: tuple[int, ...], centre: NDArray[np.float64], radius: float) -> Selection:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    disc: Selection = np.hypot(columns - centre[0], rows - centre[1]) <= radius
    return disc


def _harmonic_field(drag: Drag, allowed: Selection) -> _Field:
    """Solve Laplace's equation: the ways at discs around the handles, 0 where nothing may move."""
    field = np.zeros((*allowed.shape, 2))
    fixed = ~allowed
    for (_, way), handle in zip(_ways(drag), drag.handles, strict=True):
        grip = _disc(allowed.shape, np.asarray(handle), _GRIP_PX) & allowed
        field[grip] = way
        fixed = fixed | grip
    free = ~fixed
    for _ in range(_SWEEPS):
        padded = np.pad(field, ((1, 1), (1, 1), (0, 0)), mode="edge")
        around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
        field[free] = around[free] / 4
    return field


def _sampled(values: _Field, x: NDArray[np.float64], y: NDArray[np.float64]) -> _Field:
    """Sample an array [H, W, C] bilinearly; beyond its border it goes on as there."""
    height, width = values.shape[:2]
    x = x.clip(0, width - 1)
    y = y.clip(0, height - 1)
    left = np.minimum(x.astype(int), width - 2)
    top = np.minimum(y.astype(int), height - 2)
    across = (x - left)[..., None]
    down = (y - top)[..., None]
    above = values[top, left] * (1 - across) + values[top, left + 1] * across
    below = values[top + 1, left] * (1 - across) + values[top + 1, left + 1] * across
    sampled: _Field = above * (1 - down) + below * down
    return sampled
