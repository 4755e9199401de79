"""Move pixels as a plain editor does, without any model: what every method must beat.

`moved_thing` cuts the dragged things out (a perfect selection) and puts them at their targets,
`moved_mask` moves everything under the mask; what they uncover gets the nearest background. `bent`
draws the picture along by the engine's own field.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dragnoise.engine.config import WarpConfig
from dragnoise.engine.drag.warp import warp

from ..fidelity.pixels import Pixels, Selection
from ..world.drags import Drag, body_of

__all__ = ["Warp", "Warped", "bent", "moved_mask", "moved_thing"]

Cell = TypeVar("Cell", np.bool_, np.uint8)

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


def bent(drag: Drag) -> Pixels:
    """Draw the picture along by a smooth field, as the engine's method without a model does."""
    settings = WarpConfig()
    mask = None if drag.mask is None else torch.from_numpy(drag.mask.copy())
    handles, targets = (
        torch.tensor([(y, x) for x, y in points]) for points in (drag.handles, drag.targets)
    )
    pixels = torch.from_numpy(drag.before.copy()).permute(2, 0, 1)[None]
    moved = warp(pixels, handles, targets, mask, radius=settings.grip_px, fit=settings.fit)
    picture: Pixels = moved[0].permute(1, 2, 0).contiguous().numpy()
    return picture


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
