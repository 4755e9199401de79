"""Where a drag would move everything, and a map that is moved so.

A handle and what is near it go the handle's whole way; what may not change stays; between them the
displacement is harmonic, as smooth as it can be:

    u = target - handle   near a handle or within its grip (of several: of the nearest one),
    u = 0                 where the picture must stay; far from all handles, without a mask,
    laplace(u) = 0        elsewhere.

A moved map takes the value of the cell that comes from nearest its rest place: nearest sampling,
since a mean of neighbours would shrink the deviation of noise. Of several that come to one cell the
most firmly gripped wins. What nothing comes to is a hole.

Everything is computed on the maps' device with fixed counts of steps: nothing is read by the host.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.splat import splat

__all__ = ["Field", "displacement_field", "harmonic", "moved"]

_SWEEPS = 40
"""At each size of the map: leaves an error under a hundredth of the way, where much must stay."""

_SMALLEST = 8

_OWN = 0.71
"""Half of a cell's diagonal and a little: a handle is in one cell at least."""


@dataclass(frozen=True, eq=False)
class Field:
    """A displacement of every cell of a map.

    Attributes:
        shift: float32 [2, h, w], (rows, columns) in cells.
        grip: float32 [h, w], how firmly a cell is held by the handles, 0 to 1.
        editable: bool [h, w], where the map may change.
    """

    shift: Tensor
    grip: Tensor
    editable: Tensor


def displacement_field(
    handles: Tensor,
    targets: Tensor,
    editable: Tensor | None,
    shape: tuple[int, int],
    radius: float,
    grip: Tensor | None = None,
) -> Field:
    """Return the field of a drag.

    Args:
        handles: float [N, 2], (row, column) in cells.
        targets: float [N, 2], likewise.
        editable: bool [h, w]; None: what is nearer to a handle's way than it is long, and at least
            three radii.
        shape: (h, w) of the map.
        radius: Around a handle, what goes its whole way, in cells.
        grip: bool [h, w], what goes the whole way instead, beside the handles' own cells; None: the
            discs.
    """
    rows = torch.arange(shape[0], dtype=torch.float32, device=handles.device)
    columns = torch.arange(shape[1], dtype=torch.float32, device=handles.device)
    cells = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    handles = handles.float()
    ways = targets.float() - handles
    if editable is None:
        editable = _near(cells, handles, ways, radius)
    distances = (cells[:, :, None] - handles).square().sum(-1)
    nearest, which = distances.min(-1)
    gripped = nearest <= radius**2 if grip is None else grip | (nearest <= _OWN**2)
    gripped = gripped & editable
    known = torch.cat([ways[which].permute(2, 0, 1), torch.ones_like(nearest)[None]])
    solved = harmonic(known * gripped, gripped | ~editable)
    return Field(solved[:2], solved[2], editable)


def _near(cells: Tensor, handles: Tensor, ways: Tensor, radius: float) -> Tensor:
    """Return where cells [h, w, 2] are near a way, bool [h, w]."""
    squares = ways.square().sum(-1)
    off = cells[:, :, None] - handles
    share = ((off * ways).sum(-1) / squares.clamp(min=1e-6)).clamp(0, 1)
    distances = (off - share[..., None] * ways).square().sum(-1)
    reach = squares.clamp(min=(3 * radius) ** 2)
    return (distances <= reach).any(-1)


def harmonic(values: Tensor, fixed: Tensor) -> Tensor:
    """Return values [C, h, w] that are kept where they are fixed and harmonic elsewhere.

    Solved from coarse to fine by a fixed count of sweeps, since a test of convergence would wait
    for the device. Across the map's border nothing flows. fixed: bool [h, w].
    """
    start = torch.zeros_like(values)
    if min(values.shape[1:]) > _SMALLEST:
        weight = fixed.to(values.dtype)
        counted = F.avg_pool2d(weight[None, None], 2, ceil_mode=True)[0]
        sums = F.avg_pool2d((values * weight)[None], 2, ceil_mode=True)[0]
        coarse = harmonic(sums / counted.clamp(min=1e-6), counted[0] > 0)
        size = (values.shape[1], values.shape[2])
        start = F.interpolate(coarse[None], size, mode="bilinear", align_corners=False)[0]
    found = before = torch.where(fixed, values, start)
    for speed in _speeds(max(values.shape[1:])):
        relaxed = before + speed * (_around(found) - before)
        before, found = found, torch.where(fixed, values, relaxed)
    return found


def _around(values: Tensor) -> Tensor:
    """Return the mean of the four cells around every cell."""
    padded = F.pad(values[None], (1, 1, 1, 1), mode="replicate")[0]
    vertical = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    return (vertical + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4


def _speeds(size: int) -> Iterator[float]:
    """Yield the factors of Chebyshev's acceleration of Jacobi's iteration (Golub and Varga, 1961).

    Plain sweeps carry a value about one cell a sweep; these as far as the map is wide.
    """
    radius = math.cos(math.pi / (size + 1))
    yield 1.0
    speed = 2.0
    for _ in range(1, _SWEEPS):
        speed = 1 / (1 - radius**2 * speed / 4)
        yield speed


def moved(
    values: Tensor, field: Field, behind: Tensor | None = None, blend: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Move a map by a field, within what may change.

    Args:
        values: [1, C, h, w].
        field: Of h x w cells.
        behind: [1, C, h, w], what stands in the holes; None: what was there.
        blend: float32 [1, 1, h, w], 0 to 1, how much of the moved map is taken; None: all.

    Returns:
        The moved map, and the holes, bool [h, w].
    """
    return splat(values, field.shift, field.grip, field.editable, behind, blend)
