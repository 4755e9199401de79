"""Forward splat: every cell of a map goes its own way, and what it leaves is filled from another.

A cell at (y, x) that may change goes by its shift to the nearest cell, if that may change too:

    to(y, x)    = (floor(y + shift_0 + 1/2), floor(x + shift_1 + 1/2))
    winner(p)   = the cell of the largest weight with to(cell) = p, the last one of equals
    splatted(p) = values(winner(p)) if there is a winner,
                  behind(p) in a hole: where there is none and the map may change,
                  values(p) elsewhere
    map(p)      = lerp(values(p), splatted(p), blend(p))

Nearest sampling, since a mean of neighbours would shrink the deviation of noise; and not round(),
which would send every second half to its neighbour's cell.

    name      shape         dtype
    values    [B, C, h, w]  any float  any strides
    shift     [2, h, w]     float32    (rows, columns), in cells; what is not finite goes nowhere
    weight    [h, w]        float32    finite
    editable  [h, w]        bool       where the map may change
    behind    [B, C, h, w]  as values  any strides; None: values
    blend     [1, 1, h, w]  float32    0 to 1; None: 1 everywhere
    map       [B, C, h, w]  as values  blended in float32, in float64 if values are
    holes     [h, w]        bool

The winner is the maximum of a key: the weight's bits, which as whole numbers are in the order of
the weights, above the cell's index. So the order of writing does not matter, and all
implementations find the same winners. On a GPU the first launch writes keys, the second reads
them: there one program owns `BLOCK` cells of a channel. On a CPU PyTorch blends, after the native
kernel as after the formula: the bits are the same.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .has_native import has_native
from .has_triton import has_triton

__all__ = ["Splatted", "reference", "splat"]

_NOBODY = torch.iinfo(torch.int64).min


class Splatted(NamedTuple):
    """A splatted map, on the device of the values; the host has read nothing of it.

    Attributes:
        map: [B, C, h, w], as the values.
        holes: [h, w] bool, where the map may change and nothing has come.
    """

    map: Tensor
    holes: Tensor


def splat(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None = None,
    blend: Tensor | None = None,
) -> Splatted:
    """Return the map above, without waiting for the device and without a gradient.

    Args:
        values: [B, C, h, w], any float dtype and strides.
        shift: [2, h, w] float32, (rows, columns) in cells.
        weight: [h, w] float32, who wins where several come to one cell.
        editable: [h, w] bool, where the map may change.
        behind: [B, C, h, w], what stands in the holes; None: the values that stood there.
        blend: [1, 1, h, w] float32, how much of the splatted map is taken; None: all.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit each other.
    """
    _check(values, shift, weight, editable, behind, blend)
    given = (values, shift, weight, editable, behind, blend)
    return Splatted(*_splat(*(each if each is None else each.detach() for each in given)))


def reference(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None = None,
    blend: Tensor | None = None,
) -> Splatted:
    """Return what the kernels must equal: `splat` in plain PyTorch, on any device."""
    height, width = editable.shape
    device = values.device
    row = _nearest(torch.arange(height, dtype=torch.float32, device=device)[:, None] + shift[0])
    column = _nearest(torch.arange(width, dtype=torch.float32, device=device) + shift[1])
    comes = editable & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    to_row, to_column = (torch.where(comes, to, 0).long() for to in (row, column))
    there = (to_row * width + to_column).flatten()
    comes = comes.flatten() & editable.flatten()[there]
    keys = torch.where(comes, _keys(weight.flatten()), _NOBODY)
    best = torch.full_like(keys, _NOBODY).scatter_reduce(0, there, keys, "amax")
    covered = (best != _NOBODY).view(height, width)
    source = torch.where(covered.flatten(), best & 0xFFFFFFFF, 0)
    gathered = values.flatten(2)[:, :, source].view_as(values)
    holes = editable & ~covered
    standing = values if behind is None else torch.where(holes, behind, values)
    splatted = torch.where(covered, gathered, standing)
    return Splatted(_blended(values, splatted, blend), holes)


def _nearest(position: Tensor) -> Tensor:
    return (position + 0.5).floor()


def _keys(weight: Tensor) -> Tensor:
    """Return whole numbers in the order of the weights [n], and of the indices where they equal."""
    bits = torch.where(weight == 0, 0, weight).view(torch.int32)  # -0 equals 0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # a number below 0 is smaller the more bits it has
    return (ordered.long() << 32) | torch.arange(len(weight), device=weight.device)


def _blended(values: Tensor, splatted: Tensor, blend: Tensor | None) -> Tensor:
    """Return [B, C, h, w] as the values lie in memory."""
    if blend is not None:
        exact = torch.float64 if values.dtype == torch.float64 else torch.float32
        splatted = values.to(exact).lerp(splatted.to(exact), blend.to(exact))
    return torch.empty_like(values).copy_(splatted)


def _check(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None,
    blend: Tensor | None,
) -> None:
    if values.ndim != 4 or 0 in values.shape or not values.is_floating_point():
        got = f"{list(values.shape)} {values.dtype}"
        raise ValueError(f"values must be [B, C, h, w] floats with no side 0, got {got}")
    cells = tuple(values.shape[2:])
    wanted: list[tuple[str, Tensor | None, tuple[int, ...], torch.dtype]] = [
        ("shift", shift, (2, *cells), torch.float32),
        ("weight", weight, cells, torch.float32),
        ("editable", editable, cells, torch.bool),
        ("behind", behind, tuple(values.shape), values.dtype),
        ("blend", blend, (1, 1, *cells), torch.float32),
    ]
    for name, given, shape, dtype in wanted:
        if given is None:
            continue
        if given.shape != shape or given.dtype != dtype:
            kind = str(dtype).removeprefix("torch.")
            got = f"{list(given.shape)} {given.dtype}"
            raise ValueError(f"{name} must be {list(shape)} {kind}, got {got}")
        if given.device != values.device:
            raise ValueError(f"devices differ: {name} {given.device}, values {values.device}")


_Tensors = tuple[Tensor, Tensor]


@torch.library.custom_op("dragnoise::splat", mutates_args=())
def _splat(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None,
    blend: Tensor | None,
) -> _Tensors:
    return reference(values, shift, weight, editable, behind, blend)


@_splat.register_fake
def _(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None,
    blend: Tensor | None,
) -> _Tensors:
    return torch.empty_like(values), editable.new_empty(editable.shape)


@_splat.register_kernel("cpu")
def _(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None,
    blend: Tensor | None,
) -> _Tensors:
    if values.dtype != torch.float32 or not has_native("splat"):
        return reference(values, shift, weight, editable, behind, blend)
    from . import _native

    splatted = torch.empty_like(values)
    holes = torch.empty(editable.shape, dtype=torch.bool)
    maps = (shift.contiguous(), weight.contiguous(), editable.contiguous())
    _native.splat(values, *maps, values if behind is None else behind, splatted, holes)
    return splatted if blend is None else _blended(values, splatted, blend), holes


@_splat.register_kernel("cuda")
def _(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None,
    blend: Tensor | None,
) -> _Tensors:
    if values.dtype == torch.float64 or not has_triton():
        return reference(values, shift, weight, editable, behind, blend)
    from .gpu.splat import launch

    return launch(values, shift, weight, editable, behind, blend)
