"""Find a picture's points again in another, by features, and how far they are from their targets.

The *mean distance* of DragBench (Shi et al., DragDiffusion, 2023): both pictures' features are
enlarged to the source's size; a handle is found where the edited picture's feature has the largest
cosine with the source's at the handle, anywhere in the picture. A wrong twin far away costs
hundreds of pixels, so that the *masked* mean distance (m-MD; Xia et al., DragLoRA, ICML 2025) looks
only where the picture may have changed. Masks can be as large as the picture: ours, of no paper,
looks in a square around the target that reaches as far as the drag is long (12 px at least), with
the handle at its edge.

Points are (x, y) in image pixels; they are rounded to pixels for looking up, and those outside the
picture to its border (the published script stops at them).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.engine.errors import MaskError, NumbersError, PointError
from dragnoise.engine.inputs.points import Point

from .pixels import Selection

__all__ = [
    "Found",
    "cosine_maps",
    "distances_px",
    "find",
    "masked_distance",
    "mean_distance",
    "windowed_distance",
    "windows",
]

_CHANNELS = 64
"""How many channels are enlarged at a time: all of them would take gigabytes."""

_LEAST_PX = 12


@dataclass(frozen=True)
class Found:
    """Where handles were found again.

    Attributes:
        points: One a handle, (x, y) in image pixels.
        distances_px: From each to its target.
    """

    points: tuple[Point, ...]
    distances_px: tuple[float, ...]

    @property
    def mean_px(self) -> float:
        """The mean distance."""
        return sum(self.distances_px) / len(self.distances_px)


def mean_distance(
    source: Tensor,
    edited: Tensor,
    handles: Sequence[Point],
    targets: Sequence[Point],
    size: tuple[int, int],
) -> Found:
    """Find the handles anywhere in the edited picture.

    Args:
        source: Features of the source picture [C, h, w].
        edited: Those of the edited one, likewise.
        handles: In the source.
        targets: Where they shall be.
        size: (height, width) of the source in pixels.
    """
    maps = cosine_maps(source, edited, handles, size)
    return find(maps, targets)


def masked_distance(
    source: Tensor,
    edited: Tensor,
    handles: Sequence[Point],
    targets: Sequence[Point],
    mask: Selection,
) -> Found:
    """Find the handles where the picture may have changed; otherwise as `mean_distance`.

    Args:
        source: Features of the source picture [C, h, w].
        edited: Those of the edited one, likewise.
        handles: In the source.
        targets: Where they shall be.
        mask: bool [H, W], of the source's size; True where the edit may act.
    """
    maps = cosine_maps(source, edited, handles, (mask.shape[0], mask.shape[1]))
    return find(maps, targets, torch.tensor(mask))


def windowed_distance(
    source: Tensor,
    edited: Tensor,
    handles: Sequence[Point],
    targets: Sequence[Point],
    size: tuple[int, int],
) -> Found:
    """Find the handles in a window around each target; otherwise as `mean_distance`."""
    maps = cosine_maps(source, edited, handles, size)
    return find(maps, targets, windows(handles, targets, size))


@torch.no_grad()
def cosine_maps(
    source: Tensor, edited: Tensor, handles: Sequence[Point], size: tuple[int, int]
) -> Tensor:
    """Return each handle's cosine with every pixel of the edited picture, float32 [N, H, W].

    Args:
        source: Features of the source picture [C, h, w].
        edited: Those of the edited one, likewise.
        handles: In the source.
        size: (height, width) of the source in pixels.

    Raises:
        PointError: There is no handle.
        NumbersError: Features are not finite: they would be "found" in the first pixel.
    """
    if not handles:
        raise PointError("no handle to find again; give at least one pair of points")
    if not (source.isfinite().all() and edited.isfinite().all()):
        raise NumbersError("features are not finite; compute them in float32")
    columns, rows = zip(*(_pixel(handle, size) for handle in handles), strict=True)
    products = edited.new_zeros(len(handles), *size, dtype=torch.float32)
    squares = edited.new_zeros(size, dtype=torch.float32)
    lengths = edited.new_zeros(len(handles), dtype=torch.float32)
    parts = zip(source.split(_CHANNELS), edited.split(_CHANNELS), strict=True)
    for source_part, edited_part in parts:
        vectors = _enlarged(source_part, size)[:, list(rows), list(columns)]
        wide = _enlarged(edited_part, size)
        products += torch.einsum("cn,chw->nhw", vectors, wide)
        squares += wide.square().sum(0)
        lengths += vectors.square().sum(0)
    norms = lengths.sqrt()[:, None, None] * squares.sqrt()
    return products / norms.clamp_min(1e-8)


def find(maps: Tensor, targets: Sequence[Point], where: Tensor | None = None) -> Found:
    """Return where each map is largest, the first of equal places in reading order.

    Args:
        maps: float [N, H, W], one a target.
        targets: Where the handles shall be.
        where: bool [H, W], or [N, H, W], one a target: the places that are looked at; None: all.

    Raises:
        PointError: There are not as many targets as maps.
        MaskError: No place is left for a target.
    """
    _check_pairs(len(maps), len(targets))
    if where is not None:
        if not where.flatten(-2).any(-1).all():
            raise MaskError("no pixel to look for a point in; give a mask with at least one")
        maps = maps.masked_fill(~where.to(maps.device), -math.inf)
    places = [divmod(int(each.argmax()), maps.shape[2]) for each in maps.cpu().numpy()]
    points = tuple((float(column), float(row)) for row, column in places)
    return Found(points, distances_px(points, targets))


def windows(handles: Sequence[Point], targets: Sequence[Point], size: tuple[int, int]) -> Tensor:
    """Return the square around each target that just holds its handle, bool [N, H, W]."""
    _check_pairs(len(handles), len(targets))
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
    squares = []
    for handle, target in zip(handles, targets, strict=True):
        reach = math.ceil(max(math.dist(handle, target), _LEAST_PX))
        x, y = _pixel(target, size)
        squares.append(((rows - y).abs() <= reach) & ((columns - x).abs() <= reach))
    return torch.stack(squares)


def distances_px(points: Sequence[Point], targets: Sequence[Point]) -> tuple[float, ...]:
    """Return the distance of each point to its target in pixels."""
    return tuple(math.dist(point, target) for point, target in zip(points, targets, strict=True))


def _check_pairs(handles: int, targets: int) -> None:
    if handles != targets:
        raise PointError(f"{handles} handles and {targets} targets; give one target a handle")


def _pixel(point: Point, size: tuple[int, int]) -> tuple[int, int]:
    """Return the column and the row of the pixel that a point lies in."""
    x, y = point
    return min(max(round(x), 0), size[1] - 1), min(max(round(y), 0), size[0] - 1)


def _enlarged(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Return features [C, H, W] of the picture's size."""
    return F.interpolate(features[None].float(), size, mode="bilinear")[0]
