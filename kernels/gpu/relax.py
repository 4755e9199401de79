"""Relaxation on a GPU. Formula and table: kernels/relax.py.

One program owns a channel and makes all sweeps: between two of them it waits for itself alone. The
two maps lie in global memory, where its own cache holds them.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch", "relax_kernel"]

BLOCK = 2048
WARPS = 16


@triton.jit
def relax_kernel(
    values, fixed, start, maps, channels, rows, columns, sweeps, squared, BLOCK: tl.constexpr
):
    cells = rows * columns
    plane = tl.program_id(0) * cells
    given = values + plane
    first = start + plane
    apart = channels * cells
    for begin in range(0, cells, BLOCK):
        cell = begin + tl.arange(0, BLOCK)
        inside = cell < cells
        held = tl.load(fixed + cell, mask=inside, other=0) != 0
        value = tl.load(given + cell, mask=inside, other=0.0)
        value = tl.where(held, value, tl.load(first + cell, mask=inside, other=0.0))
        tl.store(maps + plane + cell, value, mask=inside)
        tl.store(maps + plane + apart + cell, value, mask=inside)
    tl.debug_barrier()
    speed = 1.0
    for sweep in range(sweeps):
        found = maps + plane + sweep % 2 * apart
        before = maps + plane + (1 - sweep % 2) * apart
        for begin in range(0, cells, BLOCK):
            cell = begin + tl.arange(0, BLOCK)
            inside = cell < cells
            row = cell // columns
            column = cell % columns
            up = tl.load(found + cell - tl.where(row > 0, columns, 0), mask=inside, other=0.0)
            below = tl.where(row < rows - 1, columns, 0)
            down = tl.load(found + cell + below, mask=inside, other=0.0)
            left = tl.load(found + cell - tl.where(column > 0, 1, 0), mask=inside, other=0.0)
            beside = tl.where(column < columns - 1, 1, 0)
            right = tl.load(found + cell + beside, mask=inside, other=0.0)
            last = tl.load(before + cell, mask=inside, other=0.0)
            around = (up + down + left + right) * 0.25
            held = tl.load(fixed + cell, mask=inside, other=0) != 0
            # What is fixed is in both maps, and stays.
            tl.store(before + cell, last + speed * (around - last), mask=inside & (held == 0))
        tl.debug_barrier()
        speed = 1.0 / (1.0 - squared * tl.where(sweep == 0, 2.0, speed) * 0.25)


def launch(values: Tensor, fixed: Tensor, start: Tensor, sweeps: int) -> Tensor:
    """Return the map after all sweeps, for values of float32.

    Raises ValueError for maps whose places 32 bits cannot hold.
    """
    channels, rows, columns = values.shape
    if 2 * channels * rows * columns >= 2**31:
        raise ValueError(f"too large for 32 bits: {list(values.shape)}")
    maps = torch.empty((2, channels, rows, columns), dtype=values.dtype, device=values.device)
    relax_kernel[(channels,)](
        values.contiguous(),
        fixed.contiguous(),
        start.contiguous(),
        maps,
        channels,
        rows,
        columns,
        sweeps,
        math.cos(math.pi / (max(rows, columns) + 1)) ** 2,
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
    return maps[sweeps % 2]
