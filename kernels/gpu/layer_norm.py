"""Layer normalisation on a GPU. Formula and table: kernels/layer_norm.py."""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "added_forward",
    "backward",
    "forward",
    "layer_norm_gradient_kernel",
    "layer_norm_kernel",
    "tiling",
]

ELEMENTS = 2048
"""Elements of a tile, unless a row has more: 16 registers for a thread and a map."""

WARPS = 4


@triton.jit
def _tile(rows, WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Return this program's (columns [COLUMNS], offsets [ROWS, COLUMNS], exists)."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    exists = (row[:, None] < rows) & (column[None, :] < WIDTH)
    return column, row[:, None].to(tl.int64) * WIDTH + column[None, :], exists


@triton.jit
def _normed(values, exists, eps, WIDTH: tl.constexpr):
    """Return n of the formula, zero outside the row, and rstd [ROWS, 1]."""
    mean = tl.sum(values, axis=1) / WIDTH
    apart = tl.where(exists, values - mean[:, None], 0.0)
    rstd = 1.0 / tl.sqrt(tl.sum(apart * apart, axis=1) / WIDTH + eps)
    return apart * rstd[:, None], rstd[:, None]


@triton.jit
def layer_norm_kernel(
    change,
    x,
    total,
    y,
    weight,
    bias,
    rows,
    eps,
    ADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Norm the program's rows; ADDED: first add the change, and write the sum."""
    column, offsets, exists = _tile(rows, WIDTH, ROWS, COLUMNS)
    values = tl.load(x + offsets, mask=exists, other=0.0).to(tl.float32)
    if ADDED:
        values += tl.load(change + offsets, mask=exists, other=0.0).to(tl.float32)
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + offsets, rounded, mask=exists)
        values = rounded.to(tl.float32)
    n, _ = _normed(values, exists, eps, WIDTH)
    known = column < WIDTH
    scale = tl.load(weight + column, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(bias + column, mask=known, other=0.0).to(tl.float32)
    values = n * scale[None, :] + shift[None, :]
    tl.store(y + offsets, values.to(y.dtype.element_ty), mask=exists)


@triton.jit
def layer_norm_gradient_kernel(
    gradient,
    elsewhere,
    total,
    found,
    weight,
    rows,
    eps,
    ADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write the gradient of the program's rows; ADDED: with what they get elsewhere."""
    column, offsets, exists = _tile(rows, WIDTH, ROWS, COLUMNS)
    values = tl.load(total + offsets, mask=exists, other=0.0).to(tl.float32)
    n, rstd = _normed(values, exists, eps, WIDTH)
    scale = tl.load(weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    u = tl.load(gradient + offsets, mask=exists, other=0.0).to(tl.float32) * scale[None, :]
    mean_u = (tl.sum(u, axis=1) / WIDTH)[:, None]
    mean_un = (tl.sum(u * n, axis=1) / WIDTH)[:, None]
    values = (u - mean_u - n * mean_un) * rstd
    if ADDED:
        values += tl.load(elsewhere + offsets, mask=exists, other=0.0).to(tl.float32)
    tl.store(found + offsets, values.to(found.dtype.element_ty), mask=exists)


def tiling(width: int) -> tuple[int, int]:
    """Return (ROWS, COLUMNS)."""
    columns = triton.next_power_of_2(width)
    return max(ELEMENTS // columns, 1), columns


def forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return y, without waiting."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _launch_forward(x, x, y, y, weight, bias, eps, added=False)
    return y


def added_forward(
    change: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return s and y, without waiting."""
    x = x.contiguous()
    total = torch.empty_like(x)
    y = torch.empty_like(x)
    _launch_forward(change.contiguous(), x, total, y, weight, bias, eps, added=True)
    return total, y


def _launch_forward(
    change: Tensor,
    x: Tensor,
    total: Tensor,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    added: bool,
) -> None:
    width = x.shape[-1]
    rows = x.numel() // width
    tall, wide = tiling(width)
    layer_norm_kernel[(triton.cdiv(rows, tall),)](
        change,
        x,
        total,
        y,
        weight,
        bias,
        rows,
        eps,
        ADDED=added,
        WIDTH=width,
        ROWS=tall,
        COLUMNS=wide,
        num_warps=WARPS,
    )


def backward(
    gradient: Tensor, elsewhere: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> Tensor:
    """Return the gradient of s, from that of y and what s gets elsewhere."""
    total = total.contiguous()
    gradient = gradient.contiguous()
    found = torch.empty_like(total)
    width = total.shape[-1]
    rows = total.numel() // width
    tall, wide = tiling(width)
    layer_norm_gradient_kernel[(triton.cdiv(rows, tall),)](
        gradient,
        gradient if elsewhere is None else elsewhere.contiguous(),
        total,
        found,
        weight,
        rows,
        eps,
        ADDED=elsewhere is not None,
        WIDTH=width,
        ROWS=tall,
        COLUMNS=wide,
        num_warps=WARPS,
    )
    return found
