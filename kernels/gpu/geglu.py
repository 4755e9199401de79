"""The gate of a feed-forward layer on a GPU. Formula and table: kernels/geglu.py."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["backward", "forward", "geglu_gradient_kernel", "geglu_kernel"]

ROWS = 8
COLUMNS = 256


@triton.jit
def _tile(rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's (offsets in y, offsets of h in x, exists), [ROWS, COLUMNS]."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    exists = (row[:, None] < rows) & (column[None, :] < WIDTH)
    start = row[:, None].to(tl.int64) * WIDTH
    return start + column[None, :], 2 * start + column[None, :], exists


@triton.jit
def geglu_kernel(
    x, y, rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, HALF: tl.constexpr
):
    """Write a tile of y; HALF: the root of a half."""
    there, here, exists = _tile(rows, WIDTH, ROWS, COLUMNS)
    h = tl.load(x + here, mask=exists, other=0.0).to(tl.float32)
    g = tl.load(x + here + WIDTH, mask=exists, other=0.0).to(tl.float32)
    values = h * g * (0.5 + 0.5 * tl.erf(g * HALF))
    tl.store(y + there, values.to(y.dtype.element_ty), mask=exists)


@triton.jit
def geglu_gradient_kernel(
    gradient,
    x,
    found,
    rows,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HALF: tl.constexpr,
    DENSITY: tl.constexpr,
):
    """Write both halves' gradients; DENSITY: the normal density at 0."""
    there, here, exists = _tile(rows, WIDTH, ROWS, COLUMNS)
    u = tl.load(gradient + there, mask=exists, other=0.0).to(tl.float32)
    h = tl.load(x + here, mask=exists, other=0.0).to(tl.float32)
    g = tl.load(x + here + WIDTH, mask=exists, other=0.0).to(tl.float32)
    normal = 0.5 + 0.5 * tl.erf(g * HALF)
    of_h = u * g * normal
    of_g = u * h * (normal + g * DENSITY * tl.exp(-0.5 * g * g))
    tl.store(found + here, of_h.to(found.dtype.element_ty), mask=exists)
    tl.store(found + here + WIDTH, of_g.to(found.dtype.element_ty), mask=exists)


HALF = 0.5**0.5
DENSITY = 0.3989422804014327


def _grid(rows: int, width: int) -> tuple[int, int]:
    return triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS)


def forward(x: Tensor) -> Tensor:
    """Return y, without waiting."""
    x = x.contiguous()
    width = x.shape[-1] // 2
    rows = x.numel() // x.shape[-1]
    y = torch.empty(*x.shape[:-1], width, dtype=x.dtype, device=x.device)
    geglu_kernel[_grid(rows, width)](x, y, rows, WIDTH=width, ROWS=ROWS, COLUMNS=COLUMNS, HALF=HALF)
    return y


def backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of x, from that of y."""
    x = x.contiguous()
    width = x.shape[-1] // 2
    rows = x.numel() // x.shape[-1]
    found = torch.empty_like(x)
    geglu_gradient_kernel[_grid(rows, width)](
        gradient.contiguous(),
        x,
        found,
        rows,
        WIDTH=width,
        ROWS=ROWS,
        COLUMNS=COLUMNS,
        HALF=HALF,
        DENSITY=DENSITY,
    )
    return found
