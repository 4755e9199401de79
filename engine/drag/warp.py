"""A drag without a model: pixels are moved by the field, and what they leave is painted smoothly.

The field is solved on a coarse map and enlarged, the pixels are splat to where it brings them. Gaps
of a pixel, where the picture is stretched, take the mean of what came beside them. What a thing
leaves uncovered takes the harmonic continuation of what came beside it and is not the thing.

Only the part of the picture that may change is worked on.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .field import Field, displacement_field, harmonic, moved

__all__ = ["warp"]

_CELLS = 64
"""Most cells of a side of the maps on which the field is solved, and the background continued."""

_SWEEPS = 10
"""Of both: leaves an error of a twentieth of the way, which is smooth and not seen."""

_THING = 0.9
"""How firmly it is held what goes with a thing, and is no background."""

_ACROSS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""From a pixel to one of two that lie opposite each other, (rows, columns)."""


@torch.no_grad()
def warp(
    pixels: Tensor,
    handles: Tensor,
    targets: Tensor,
    editable: Tensor | None = None,
    grip: Tensor | None = None,
    *,
    radius: float = 16.0,
    fit: str = "similarity",
) -> Tensor:
    """Return a picture with its pixels moved, of the same shape and type.

    Args:
        pixels: uint8 or float32 [1, 3, H, W], on the CPU.
        handles: float [N, 2], (row, column) in pixels.
        targets: float [N, 2], likewise.
        editable: bool [H, W], where it may change; None: around the handles' ways.
        grip: bool [H, W], what moves as one piece; None: a disc about each handle.
        radius: Of the discs, in pixels.
        fit: How several handles move one piece, one of `FITS`.
    """
    height, width = pixels.shape[2:]
    step = -(-max(height, width) // _CELLS)
    coarse = displacement_field(
        _in_cells(handles, step),
        _in_cells(targets, step),
        None if editable is None else ~_blocks(~editable, step),
        (-(-height // step), -(-width // step)),
        radius / step,
        None if grip is None else _grown(_blocks(grip, step)),
        fit,
        _SWEEPS,
    )
    box = _box(coarse.editable)
    if box is None:
        return pixels
    rows, columns = (slice(span.start * step, span.stop * step) for span in box)
    part = pixels[:, :, rows, columns].float()
    own = None if editable is None else editable[rows, columns]
    field = _enlarged(coarse, box, step, part, own)
    painted = _painted(part, field)
    changed = pixels.clone()
    changed[:, :, rows, columns] = painted if pixels.is_floating_point() else painted.round()
    return changed


def _in_cells(points: Tensor, step: int) -> Tensor:
    """Return pixels as cells of the coarse map, from middles to middles."""
    return (points.float() + 0.5) / step - 0.5


def _blocks(marked: Tensor, step: int) -> Tensor:
    """Return which cells of the coarse map have a marked pixel, bool [h, w]."""
    height, width = marked.shape
    below, right = -height % step, -width % step
    padded = F.pad(marked.to(torch.float32)[None, None], (0, right, 0, below))
    return F.max_pool2d(padded, step)[0, 0] > 0


def _grown(marked: Tensor) -> Tensor:
    """Return the marked cells and those beside them: between their middles all is as in them."""
    return F.max_pool2d(marked[None].to(torch.float32), 3, 1, 1)[0] > 0


def _box(marked: Tensor) -> tuple[slice, slice] | None:
    """Return the rows and columns that have a marked cell, and those beside them; None if none."""
    spans = []
    for axis, size in ((1, marked.shape[0]), (0, marked.shape[1])):
        found = marked.any(axis).nonzero()
        if not len(found):
            return None
        spans.append(slice(max(int(found[0]) - 1, 0), min(int(found[-1]) + 2, size)))
    return spans[0], spans[1]


def _enlarged(
    coarse: Field, box: tuple[slice, slice], step: int, part: Tensor, editable: Tensor | None
) -> Field:
    """Return a part of a coarse field in pixels.

    Args:
        coarse: In cells of `step` pixels.
        box: The part.
        part: The part's pixels [1, 3, h, w].
        editable: bool [h, w], where pixels of the part may change; None: in the cells that may.
    """
    maps = torch.cat([coarse.shift * step, coarse.grip[None], coarse.editable[None].float()])
    cells = maps[(slice(None), *box)][None]
    smooth = F.interpolate(cells[:, :3], scale_factor=step, mode="bilinear", align_corners=False)
    height, width = part.shape[2:]
    if editable is None:
        editable = F.interpolate(cells[:, 3:], scale_factor=step)[0, 0, :height, :width] > 0
    shift, grip = smooth[0, :2, :height, :width], smooth[0, 2, :height, :width]
    return Field(shift.contiguous(), grip.contiguous(), editable)


def _painted(part: Tensor, field: Field) -> Tensor:
    """Return pixels [1, 3, h, w] moved by a field, gaps and what is uncovered filled."""
    splatted, holes = moved(torch.cat([part, field.grip[None, None]], 1), field)
    came, held = splatted[:, :3], splatted[0, 3]
    where = holes.flatten().nonzero()[:, 0]
    if len(where):
        between = _between(~holes, where)
        gaps, uncovered = where[between], where[~between]
        background = ~holes & (held < _THING)
        around = _continued(came, background if background.any() else ~holes, uncovered)
        beside = _beside(came, ~holes, gaps)
        flat = came.view(3, -1)
        flat[:, gaps], flat[:, uncovered] = beside, around
    return came


def _between(known: Tensor, where: Tensor) -> Tensor:
    """Return which of some pixels lie between two known ones, opposite each other, bool [N].

    So gaps do; what lies beside an edge does not.

    Args:
        known: bool [h, w].
        where: int64 [N], the pixels, row by row.
    """
    wide, centre, steps = _framed(known[None], where)
    pairs = (wide[0, centre + step] & wide[0, centre - step] for step in steps)
    return torch.stack(list(pairs)).any(0)


def _beside(part: Tensor, known: Tensor, where: Tensor) -> Tensor:
    """Return the mean of the known ones of the eight pixels beside each of some, float32 [3, N].

    Args:
        part: float32 [1, 3, h, w].
        known: bool [h, w].
        where: int64 [N], the pixels, row by row.
    """
    both = torch.cat([part * known, known[None, None]], 1)[0]
    wide, centre, steps = _framed(both, where)
    sums = sum(wide[:, centre + step] + wide[:, centre - step] for step in steps)
    assert isinstance(sums, Tensor)
    return sums[:3] / sums[3]


def _framed(maps: Tensor, where: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Return maps [C, h, w] in a frame of zeros, pixel by pixel; where pixels lie; steps across."""
    width = maps.shape[2]
    wide = F.pad(maps, (1, 1, 1, 1)).flatten(1)
    centre = (where // width + 1) * (width + 2) + where % width + 1
    return wide, centre, [row * (width + 2) + column for row, column in _ACROSS]


def _continued(part: Tensor, known: Tensor, where: Tensor) -> Tensor:
    """Return the harmonic continuation of the known pixels at some, float32 [3, N].

    Args:
        part: float32 [1, 3, h, w].
        known: bool [h, w].
        where: int64 [N], the pixels, row by row.
    """
    height, width = known.shape
    step = -(-max(known.shape) // _CELLS)
    both = torch.cat([part * known, known[None, None]], 1)
    blocks = F.avg_pool2d(F.pad(both, (0, -width % step, 0, -height % step)), step)[0]
    means = blocks[:3] / blocks[3].clamp(min=1e-6)
    middle = (means * blocks[3]).sum((1, 2), keepdim=True) / blocks[3].sum().clamp(min=1e-6)
    around = harmonic(means - middle, blocks[3] > 0, _SWEEPS) + middle
    places = torch.stack([where % width, where // width], -1).to(torch.float32)
    size = places.new_tensor([around.shape[2] * step, around.shape[1] * step])
    grid = (2 * places + 1) / size - 1
    found = F.grid_sample(
        around[None], grid[None, None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, :, 0]
