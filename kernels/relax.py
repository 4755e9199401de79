"""Relaxation: a map grows harmonic, sweep by sweep, around what is fixed in it.

Each cell goes to the mean of the four beside it; across the map's border nothing flows:

    a_n(p) = (up(x_n) + down(x_n) + left(x_n) + right(x_n)) / 4   at p, replicated at the border
    x_0    = values where it is fixed, start elsewhere;  x_(-1) = x_0
    x_n+1  = values where it is fixed, x_(n-1) + speed_n * (a_n - x_(n-1)) elsewhere

That is Jacobi's iteration with Chebyshev's acceleration (Golub and Varga, 1961): plain sweeps carry
a value about one cell a sweep, these as far as the map is wide. Both halves of the recurrence read
the iterate before the last, so two maps are enough.

    name    shape      dtype
    values  [C, h, w]  float32, float64  what is fixed has these
    fixed   [h, w]     bool
    start   [C, h, w]  as values         where the rest begins
    result  [C, h, w]  as values         after all sweeps

On a GPU one program owns a channel, since channels do not meet: all sweeps are one launch, where
PyTorch makes nine a sweep. On a CPU the native kernel adds in the formula's order: the same bits.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .has_native import has_native
from .has_triton import has_triton

__all__ = ["reference", "relax", "speeds"]


def relax(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    """Return a map after some sweeps, [C, h, w].

    Args:
        values: [C, h, w].
        fixed: bool [h, w].
        start: [C, h, w].
        sweeps: At least 1.

    Raises:
        ValueError: Shapes, types or devices do not fit.
    """
    _check(values, fixed, start, sweeps)
    found: Tensor = _relax(values.detach(), fixed, start.detach(), sweeps)
    return found


def reference(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    """Return what the kernels must equal: `relax` in plain PyTorch, on any device."""
    found = before = torch.where(fixed, values, start)
    for speed in speeds(max(values.shape[1:]), sweeps):
        relaxed = before + speed * (_around(found) - before)
        before, found = found, torch.where(fixed, values, relaxed)
    return found


def speeds(size: int, sweeps: int) -> Iterator[float]:
    """Yield the factors of the sweeps over a map whose longer side is `size`."""
    radius = math.cos(math.pi / (size + 1))
    yield 1.0
    speed = 2.0
    for _ in range(1, sweeps):
        speed = 1 / (1 - radius**2 * speed / 4)
        yield speed


def _around(values: Tensor) -> Tensor:
    """Return the mean of the four cells around every cell."""
    padded = F.pad(values[None], (1, 1, 1, 1), mode="replicate")[0]
    vertical = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]
    return (vertical + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4


def _check(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> None:
    if values.ndim != 3 or 0 in values.shape or values.dtype not in (torch.float32, torch.float64):
        got = f"{list(values.shape)} {values.dtype}"
        raise ValueError(f"values must be [C, h, w] float32 with no side 0, got {got}")
    if fixed.shape != values.shape[1:] or fixed.dtype != torch.bool:
        got = f"{list(fixed.shape)} {fixed.dtype}"
        raise ValueError(f"fixed must be {list(values.shape[1:])} bool, got {got}")
    if start.shape != values.shape or start.dtype != values.dtype:
        got = f"{list(start.shape)} {start.dtype}"
        raise ValueError(f"start must be {list(values.shape)} {values.dtype}, got {got}")
    for name, given in (("fixed", fixed), ("start", start)):
        if given.device != values.device:
            raise ValueError(f"devices differ: {name} {given.device}, values {values.device}")
    if sweeps < 1:
        raise ValueError(f"sweeps must be at least 1, got {sweeps}")


@torch.library.custom_op("dragnoise::relax", mutates_args=())
def _relax(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    return reference(values, fixed, start, sweeps)


@_relax.register_fake
def _(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    return values.new_empty(values.shape)


@_relax.register_kernel("cpu")
def _(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    if values.dtype != torch.float32 or not has_native("relax"):
        return reference(values, fixed, start, sweeps)
    from . import _native

    found = torch.where(fixed, values, start).contiguous()
    before = found.clone()
    factors = torch.tensor(list(speeds(max(values.shape[1:]), sweeps)), dtype=torch.float32)
    _native.relax(fixed.contiguous(), factors, found, before)
    return found


@_relax.register_kernel("cuda")
def _(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    if values.dtype == torch.float64 or not has_triton():
        return reference(values, fixed, start, sweeps)
    from .gpu.relax import launch

    return launch(values, fixed, start, sweeps)
