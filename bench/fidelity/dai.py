"""Compare what was at the handles with what is at the targets (dragging accuracy index).

Zhang et al., GoodDrag, ICLR 2025, the equation of DAI: the mean over the pairs of the squared
difference of two square patches, colours from 0 to 1, by their pixels. (The published script
divides by the number of pairs twice; the equation does not.)
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dragnoise.engine.errors import ImageError, PointError
from dragnoise.engine.inputs.points import Point

from .pixels import Pixels

__all__ = ["RADII", "dragging_accuracy"]

RADII = (1, 5, 10, 20)
"""Radii that are published, in pixels."""


def dragging_accuracy(
    source: Pixels,
    edited: Pixels,
    handles: Sequence[Point],
    targets: Sequence[Point],
    radius: int,
) -> float:
    """Return the index: 0 where every target shows what its handle showed.

    Args:
        source: The picture before.
        edited: The picture after, of the same size.
        handles: (x, y) in image pixels; rounded.
        targets: Likewise.
        radius: Of the patches; a patch is cut where it or its twin leaves the picture.

    Raises:
        ImageError: The pictures differ in size.
        PointError: There is no pair, a point lacks its twin, or nothing of its patches is in the
            picture.
    """
    if source.shape != edited.shape:
        raise ImageError(f"pictures of one size are compared, got {[source.shape, edited.shape]}")
    if not handles:
        raise PointError("no pair of points to compare; give at least one")
    if len(handles) != len(targets):
        raise PointError(
            f"{len(handles)} handles and {len(targets)} targets; give one target a handle"
        )
    differences = [
        _difference(source, edited, handle, target, radius)
        for handle, target in zip(handles, targets, strict=True)
    ]
    return float(np.mean(differences))


def _difference(source: Pixels, edited: Pixels, handle: Point, target: Point, radius: int) -> float:
    """Return the squared difference of two patches, the mean over their pixels."""
    offsets = np.arange(-radius, radius + 1)
    columns = _inside(offsets, round(handle[0]), round(target[0]), source.shape[1])
    rows = _inside(offsets, round(handle[1]), round(target[1]), source.shape[0])
    if not rows.size or not columns.size:
        raise PointError(
            f"patches of radius {radius} at {handle} and {target} have no pixel in common within "
            f"{source.shape[1]}x{source.shape[0]}; give points that lie in the picture"
        )
    before = _patch(source, handle, rows, columns)
    after = _patch(edited, target, rows, columns)
    return float(np.square(before - after).sum(-1).mean())


def _inside(offsets: NDArray[np.int64], one: int, other: int, side: int) -> NDArray[np.int64]:
    """Return the offsets that stay in the picture from both places."""
    kept: NDArray[np.int64] = offsets[
        (offsets + min(one, other) >= 0) & (offsets + max(one, other) < side)
    ]
    return kept


def _patch(
    picture: Pixels, centre: Point, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    x, y = round(centre[0]), round(centre[1])
    patch: NDArray[np.float64] = picture[np.ix_(rows + y, columns + x)] / 255.0
    return patch
