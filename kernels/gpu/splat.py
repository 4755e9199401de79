"""Forward splat on a GPU. Formula and table: kernels/splat.py.

The first launch gives every cell's key to the cell that it goes to: one program owns `BLOCK` cells.
The second gathers, fills and blends: one program owns `BLOCK` cells of one channel.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["gather_kernel", "keys_kernel", "launch"]

BLOCK = 256
WARPS = 4
NOBODY = torch.iinfo(torch.int64).min


@triton.jit
def keys_kernel(shift, weight, editable, keys, rows, columns, BLOCK: tl.constexpr):
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < rows * columns
    down = tl.load(shift + cell, mask=inside, other=0.0)
    right = tl.load(shift + rows * columns + cell, mask=inside, other=0.0)
    row = tl.floor((cell // columns).to(tl.float32) + down + 0.5)
    column = tl.floor((cell % columns).to(tl.float32) + right + 0.5)
    comes = inside & (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    # Only what is a number within the map becomes an index.
    to_row = tl.where(comes, row, 0.0).to(tl.int32)
    to_column = tl.where(comes, column, 0.0).to(tl.int32)
    there = to_row * columns + to_column
    comes &= tl.load(editable + cell, mask=inside, other=0) != 0
    comes &= tl.load(editable + there, mask=comes, other=0) != 0
    firm = tl.load(weight + cell, mask=comes, other=0.0)
    bits = tl.where(firm == 0.0, 0.0, firm).to(tl.int32, bitcast=True)  # -0 equals 0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    key = (ordered.to(tl.int64) << 32) | cell.to(tl.int64)
    tl.atomic_max(keys + there, key, mask=comes, sem="relaxed")


@triton.jit
def gather_kernel(
    values,
    behind,
    blend,
    editable,
    keys,
    splatted,
    holes,
    channels,
    cells,
    columns,
    values_entry,
    values_channel,
    values_row,
    values_column,
    behind_entry,
    behind_channel,
    behind_row,
    behind_column,
    splatted_entry,
    splatted_channel,
    splatted_row,
    splatted_column,
    NOBODY: tl.constexpr,
    BLENDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entry = tl.program_id(1) // channels
    channel = tl.program_id(1) % channels
    cell = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = cell < cells
    row = cell // columns
    column = cell % columns
    key = tl.load(keys + cell, mask=inside, other=NOBODY)
    covered = inside & (key != NOBODY)
    hole = tl.load(editable + cell, mask=inside, other=0) != 0
    hole &= key == NOBODY
    tl.store(holes + cell, hole, mask=inside & (tl.program_id(1) == 0))
    winner = tl.where(covered, key & 0xFFFFFFFF, cell.to(tl.int64)).to(tl.int32)
    plane = values + entry * values_entry + channel * values_channel
    come = plane + (winner // columns) * values_row + (winner % columns) * values_column
    at_behind = entry * behind_entry + channel * behind_channel
    under = behind + at_behind + row * behind_row + column * behind_column
    # What nobody comes to and may not change is its own winner.
    found = tl.load(come, mask=inside & (hole == 0), other=0.0)
    found = tl.where(hole, tl.load(under, mask=hole, other=0.0), found)
    if BLENDED:
        share = tl.load(blend + cell, mask=inside, other=0.0)
        here = plane + row * values_row + column * values_column
        start = tl.load(here, mask=inside, other=0.0).to(tl.float32)
        end = found.to(tl.float32)
        # As PyTorch blends: exact at both ends.
        low = start + share * (end - start)
        high = end - (end - start) * (1 - share)
        found = tl.where(share < 0.5, low, high)
    at_splatted = entry * splatted_entry + channel * splatted_channel
    to = splatted + at_splatted + row * splatted_row + column * splatted_column
    tl.store(to, found, mask=inside)


def launch(
    values: Tensor,
    shift: Tensor,
    weight: Tensor,
    editable: Tensor,
    behind: Tensor | None,
    blend: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return map and holes, for values of at most float32 and any strides.

    Raises ValueError for maps whose places 32 bits cannot hold.
    """
    entries, channels, rows, columns = values.shape
    behind = values if behind is None else behind
    result = torch.empty_like(values)
    extents = [
        sum((side - 1) * stride for side, stride in zip(each.shape, each.stride(), strict=True))
        for each in (values, behind, result)
    ]
    if max(*extents, rows * columns) >= 2**31:
        raise ValueError(f"too large for 32 bits: {list(values.shape)}")
    editable = editable.contiguous()
    keys = torch.full((rows, columns), NOBODY, dtype=torch.int64, device=values.device)
    holes = torch.empty_like(editable)
    blocks = triton.cdiv(rows * columns, BLOCK)
    keys_kernel[(blocks,)](
        shift.contiguous(),
        weight.contiguous(),
        editable,
        keys,
        rows,
        columns,
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
    gather_kernel[(blocks, entries * channels)](
        values,
        behind,
        values if blend is None else blend.contiguous(),
        editable,
        keys,
        result,
        holes,
        channels,
        rows * columns,
        columns,
        *values.stride(),
        *behind.stride(),
        *result.stride(),
        NOBODY=NOBODY,
        BLENDED=blend is not None,
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
    return result, holes
