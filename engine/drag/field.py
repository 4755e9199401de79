"""Where a drag would move everything, and a map that is moved so.

What is gripped goes with its handles: a grip that is given, or a disc about each handle. What may
not change stays; between them the displacement is harmonic, as smooth as it can be:

    u = its handles' motion   where it is gripped,
    u = 0                     where the picture must stay; far from all handles, without a mask,
    laplace(u) = 0            elsewhere.

One handle moves its piece by target - handle. The motion of several in one piece (a connected part
of the grip; discs that touch are one) is the moving least squares fit of Schaefer et al. (2006): by
two, things turn and grow.

A moved map takes the value of the cell that comes from nearest its rest place: nearest sampling,
since a mean of neighbours would shrink the deviation of noise. Of several that come to one cell the
most firmly gripped wins. What nothing comes to is a hole. A smooth map may be sampled between its
cells instead, by cubics, so that it comes to where it should and not to the next whole cell.

Everything is computed on the maps' device with fixed counts of steps: nothing is read by the host.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.relax import relax
from dragnoise.kernels.splat import splat

__all__ = [
    "SWEEPS",
    "Field",
    "displacement_field",
    "harmonic",
    "moved",
    "pieces",
    "remainder",
]

SWEEPS = 40
"""At each size of the map: leaves an error under a hundredth of the way, where much must stay."""

_SMALLEST = 8

_NEAREST = 1e-4
"""Added to squared distances, in cells: what a handle lies on goes its way."""

_STIFF = 1e-2
"""Added to squared distances between handles, in cells: where they are one, nothing turns."""

_ROUNDS = 8
"""Enough for a spiral over 65 x 65 cells."""

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
    fit: str = "similarity",
    sweeps: int = SWEEPS,
) -> Field:
    """Return the field of a drag.

    Args:
        handles: float [N, 2], (row, column) in cells.
        targets: float [N, 2], likewise.
        editable: bool [h, w]; None: what is nearer to a handle's way than it is long, and at least
            three radii.
        shape: (h, w) of the map.
        radius: Around a handle, what goes with it, in cells; its own cell always does.
        grip: bool [h, w], what goes with the handles in it instead; None: the discs.
        fit: How several handles move one piece, one of `FITS`.
        sweeps: See `harmonic`.
    """
    rows = torch.arange(shape[0], dtype=torch.float32, device=handles.device)
    columns = torch.arange(shape[1], dtype=torch.float32, device=handles.device)
    cells = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    handles = handles.float()
    ways = targets.float() - handles
    if editable is None:
        editable = _near(cells, handles, ways, radius)
    apart = (cells[:, :, None] - handles).square().sum(-1)
    nearest = apart.amin(-1)
    gripped = nearest <= max(radius if grip is None else 0, _OWN) ** 2
    gripped = (gripped if grip is None else gripped | grip) & editable
    weights = _weights(apart, handles, gripped)
    motion = _motion(cells, handles, ways, weights, fit)
    known = torch.cat([motion.permute(2, 0, 1), torch.ones_like(nearest)[None]])
    solved = harmonic(known * gripped, gripped | ~editable, sweeps)
    return Field(solved[:2], solved[2], editable)


def _weights(apart: Tensor, handles: Tensor, gripped: Tensor) -> Tensor:
    """Return how much each handle moves a cell, [h, w, N], of sum 1: the nearer the more.

    A piece is moved by the handles in it, or by all where it has none.

    Args:
        apart: Squared distances of cells and handles, float32 [h, w, N].
        handles: float32 [N, 2].
        gripped: bool [h, w].
    """
    weights = 1 / (apart + _NEAREST)
    if len(handles) > 1:
        piece = pieces(gripped)
        height, width = gripped.shape
        row = handles[:, 0].round().long().clamp(0, height - 1)
        column = handles[:, 1].round().long().clamp(0, width - 1)
        own = piece[..., None] == piece[row, column]
        weights = weights * (own | ~own.any(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def pieces(gripped: Tensor) -> Tensor:
    """Return which connected piece each cell is in, as the index of one of its cells; else its own.

    Every cell points at a cell of its piece, first at itself. In every round it points at the
    greatest that is pointed at around it, makes what it pointed at do so too, and then goes on to
    what that points at. So the count of rounds grows with the logarithm of a piece's length, and
    can be fixed (Shiloach and Vishkin, 1982).

    Args:
        gripped: bool [h, w].

    Returns:
        int64 [h, w].
    """
    own = torch.arange(gripped.numel(), device=gripped.device)
    points = own
    for _ in range(_ROUNDS):
        # float32 holds the indices of any map of less than 2^24 cells.
        seen = torch.where(gripped, points.view_as(gripped), -1).float()
        greatest = F.max_pool2d(seen[None], 3, 1, 1)[0].long()
        greatest = torch.where(gripped, greatest, own.view_as(gripped)).flatten()
        points = torch.maximum(points.scatter_reduce(0, points, greatest, "amax"), greatest)
        points = points[points[points]]
    return points.view_as(gripped)


def _motion(cells: Tensor, handles: Tensor, ways: Tensor, weights: Tensor, fit: str) -> Tensor:
    """Return the displacement of every cell, if it went with the handles, [h, w, 2].

    The affine, similar or rigid map that brings the handles to their targets best, weighted by
    nearness (Schaefer et al., 2006, section 2): with p the handles and r their ways, both from
    their weighted means, the map less the identity is (sum w p p')^-1 sum w p r'. One handle moves
    all alike: then p and r are zero, and so is that.

    Args:
        cells: float32 [h, w, 2], their places.
        handles: float32 [N, 2].
        ways: float32 [N, 2].
        weights: float32 [h, w, N], of sum 1.
        fit: One of `FITS`.
    """
    middle, way = _mean(handles, weights), _mean(ways, weights)
    off, more = handles - middle[:, :, None], ways - way[:, :, None]
    linear = _LINEAR[fit](off, more, weights)
    return way + ((cells - middle)[..., None] * linear).sum(-2)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum over handles, [h, w, ...].

    No product of matrices: some devices round those more coarsely.

    Args:
        values: [h, w, N, ...], or [N, 2] that are the same in every cell.
        weights: [h, w, N].
    """
    each = values if values.dim() > 2 else values.expand(*weights.shape, 2)
    return (weights.reshape(*weights.shape, *(1,) * (each.dim() - 3)) * each).sum(2)


def _affine(off: Tensor, more: Tensor, weights: Tensor) -> Tensor:
    """Return an affine map less the identity, [h, w, 2, 2]."""
    spread = _mean(off[..., :, None] * off[..., None, :], weights)
    mixed = _mean(off[..., :, None] * more[..., None, :], weights)
    a, b, d = spread[..., 0, 0] + _STIFF, spread[..., 0, 1], spread[..., 1, 1] + _STIFF
    first = d[..., None] * mixed[..., 0, :] - b[..., None] * mixed[..., 1, :]
    second = a[..., None] * mixed[..., 1, :] - b[..., None] * mixed[..., 0, :]
    return torch.stack([first, second], -2) / (a * d - b * b)[..., None, None]


def _turn(off: Tensor, more: Tensor, weights: Tensor, rigid: bool) -> Tensor:
    """Return a turn, with a scale unless it is rigid, less the identity, [h, w, 2, 2]."""
    spread = (weights * off.square().sum(-1)).sum(-1) + _STIFF
    along = (weights * (off * more).sum(-1)).sum(-1)
    across = (weights * (off[..., 0] * more[..., 1] - off[..., 1] * more[..., 0])).sum(-1)
    if rigid:
        length = ((spread + along).square() + across.square()).sqrt().clamp(min=_STIFF)
        along, across = (spread + along) / length - 1, across / length
    else:
        along, across = along / spread, across / spread
    return torch.stack([torch.stack([along, across], -1), torch.stack([-across, along], -1)], -2)


_LINEAR: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "rigid": partial(_turn, rigid=True),
    "similarity": partial(_turn, rigid=False),
    "affine": _affine,
}


def _near(cells: Tensor, handles: Tensor, ways: Tensor, radius: float) -> Tensor:
    """Return where cells [h, w, 2] are near a way, bool [h, w]."""
    squares = ways.square().sum(-1)
    off = cells[:, :, None] - handles
    share = ((off * ways).sum(-1) / squares.clamp(min=1e-6)).clamp(0, 1)
    distances = (off - share[..., None] * ways).square().sum(-1)
    reach = squares.clamp(min=(3 * radius) ** 2)
    return (distances <= reach).any(-1)


def harmonic(values: Tensor, fixed: Tensor, sweeps: int = SWEEPS) -> Tensor:
    """Return values [C, h, w] that are kept where they are fixed and harmonic elsewhere.

    Solved from coarse to fine by a fixed count of sweeps, since a test of convergence would wait
    for the device. Across the map's border nothing flows.

    Args:
        values: float [C, h, w].
        fixed: bool [h, w].
        sweeps: At each size of the map; the more, the more exact.
    """
    start = torch.zeros_like(values)
    if min(values.shape[1:]) > _SMALLEST:
        weight = fixed.to(values.dtype)
        counted = F.avg_pool2d(weight[None, None], 2, ceil_mode=True)[0]
        sums = F.avg_pool2d((values * weight)[None], 2, ceil_mode=True)[0]
        coarse = harmonic(sums / counted.clamp(min=1e-6), counted[0] > 0, sweeps)
        size = (values.shape[1], values.shape[2])
        start = F.interpolate(coarse[None], size, mode="bilinear", align_corners=False)[0]
    return relax(values, fixed, start, sweeps)


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


def remainder(values: Tensor, field: Field) -> Tensor:
    """Return what `moved` leaves out of a smooth map, as it goes by whole cells; in holes nothing.

    With it the map is sampled between its cells: Keys, Cubic Convolution Interpolation for Digital
    Image Processing, 1981.
    """
    height, width = values.shape[2:]
    both, holes = moved(torch.cat([values.float(), field.shift[None]], 1), field)
    nearest, shift = both[:, :-2], both[0, -2:]
    rows = torch.arange(height, dtype=torch.float32, device=values.device)[:, None] - shift[0]
    columns = torch.arange(width, dtype=torch.float32, device=values.device) - shift[1]
    places = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], -1)[None]
    found = F.grid_sample(
        values, places, mode="bicubic", padding_mode="border", align_corners=False
    )
    on_cells = (shift == shift.round()).all(0)  # where sampling would only add rounding
    return (found - nearest).masked_fill(holes | on_cells, 0)
