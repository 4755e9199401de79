"""Point tracking on a GPU. Formula and table: kernels/point_tracking.py.

One program searches the window of one point. The window's positions come in blocks of `BLOCK_P`,
the channels in blocks of `BLOCK_C`: four neighbours of every position are loaded (they overlap: the
first-level cache serves most of it), interpolated in float32 and compared with the origins.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch", "track_points_kernel"]

BLOCK_P = 64
BLOCK_C = 32
WARPS = 8


@triton.jit
def _taps(position, size_small, size_large):
    """Return (lower, upper, fraction): (1 - fraction) small[lower] + fraction small[upper].

    Whole numbers up to the last division.
    """
    denominator = 2 * size_large
    numerator = (2 * position + 1) * size_small - size_large
    numerator = tl.minimum(tl.maximum(numerator, 0), denominator * (size_small - 1))
    lower = numerator // denominator
    upper = tl.minimum(lower + 1, size_small - 1)
    fraction = tl.div_rn(
        (numerator % denominator).to(tl.float32), tl.full(position.shape, denominator, tl.float32)
    )
    return lower, upper, fraction


@triton.jit
def _window(handle, offset, radius, size):
    """Return positions `offset` from the window's start along one axis, clamped into the map.

    Far outside all are the border, and nothing overflows.
    """
    centre = tl.minimum(tl.maximum(handle, -radius), size - 1 + radius)
    return tl.minimum(tl.maximum(centre - radius + offset, 0), size - 1).to(tl.int32)


@triton.jit
def track_points_kernel(
    features,
    origins,
    handles,
    targets,
    moved,
    reached,
    all_reached,
    channels,
    small_rows,
    small_columns,
    channel_stride,
    row_stride,
    column_stride,
    point_stride,
    origins_stride,
    rows,
    columns,
    radius,
    near,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    point = tl.program_id(0)
    handle_row = tl.load(handles + 2 * point)
    handle_column = tl.load(handles + 2 * point + 1)
    side = 2 * radius + 1
    least = tl.full((), float("inf"), tl.float32)
    best = tl.full((), 0, tl.int32)  # and there it stays where no distance is finite
    for start in range(0, side * side, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)
        row = _window(handle_row, position // side, radius, rows)
        column = _window(handle_column, position % side, radius, columns)
        upper_row, lower_row, down = _taps(row, small_rows, rows)
        left, right, across = _taps(column, small_columns, columns)
        upper_left = (upper_row * row_stride + left * column_stride)[:, None]
        upper_right = (upper_row * row_stride + right * column_stride)[:, None]
        lower_left = (lower_row * row_stride + left * column_stride)[:, None]
        lower_right = (lower_row * row_stride + right * column_stride)[:, None]
        distance = tl.zeros((BLOCK_P,), tl.float32)
        for first in range(0, channels, BLOCK_C):
            channel = first + tl.arange(0, BLOCK_C)
            there = channel < channels
            wanted = tl.load(
                origins + point * point_stride + channel * origins_stride, mask=there, other=0.0
            )
            feature = features + (channel * channel_stride)[None, :]
            a = tl.load(feature + upper_left, mask=there[None, :], other=0.0).to(tl.float32)
            b = tl.load(feature + upper_right, mask=there[None, :], other=0.0).to(tl.float32)
            above = a + across[:, None] * (b - a)
            a = tl.load(feature + lower_left, mask=there[None, :], other=0.0).to(tl.float32)
            b = tl.load(feature + lower_right, mask=there[None, :], other=0.0).to(tl.float32)
            below = a + across[:, None] * (b - a)
            found = above + down[:, None] * (below - above)
            distance += tl.sum(tl.abs(found - wanted.to(tl.float32)[None, :]), axis=1)
        # Not a number is as far as can be, like what is past the window's end.
        distance = tl.where(
            (position < side * side) & (distance == distance), distance, float("inf")
        )
        nearest = tl.min(distance, axis=0)
        if nearest < least:
            least = nearest
            best = tl.min(tl.where(distance == nearest, position, side * side), axis=0)
    best_row = _window(handle_row, best // side, radius, rows)
    best_column = _window(handle_column, best % side, radius, columns)
    tl.store(moved + 2 * point, best_row.to(tl.int64))
    tl.store(moved + 2 * point + 1, best_column.to(tl.int64))
    to_row = (tl.load(targets + 2 * point) - best_row).to(tl.float32)
    to_column = (tl.load(targets + 2 * point + 1) - best_column).to(tl.float32)
    arrived = to_row * to_row + to_column * to_column < near * near
    tl.store(reached + point, arrived)
    tl.store(all_reached, arrived, mask=arrived == 0)


def launch(
    features: Tensor,
    origins: Tensor,
    handles: Tensor,
    targets: Tensor,
    resolution: tuple[int, int],
    radius: int,
    near: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return moved, reached, all_reached; features and origins of at most float32, any strides.

    near: A point that is strictly nearer to its target has reached it, in supervision pixels.
    Raises ValueError for sizes whose products 32 bits cannot hold.
    """
    count = handles.shape[0]
    products = [
        2 * (small + 1) * large for small, large in zip(features.shape[1:], resolution, strict=True)
    ]
    extent = sum(
        (side - 1) * stride for side, stride in zip(features.shape, features.stride(), strict=True)
    )
    if max(*products, extent) >= 2**31:
        raise ValueError(f"too large for 32 bits: {list(features.shape)} to {resolution}")
    moved = torch.empty_like(handles, memory_format=torch.contiguous_format)
    reached = handles.new_empty(count, dtype=torch.bool)
    all_reached = handles.new_ones((), dtype=torch.bool)
    if count:
        track_points_kernel[(count,)](
            features,
            origins,
            handles.contiguous(),
            targets.contiguous(),
            moved,
            reached,
            all_reached,
            *features.shape,
            *features.stride(),
            *origins.stride(),
            *resolution,
            radius,
            near,
            BLOCK_P=BLOCK_P,
            BLOCK_C=min(BLOCK_C, triton.next_power_of_2(features.shape[0])),
            num_warps=WARPS,
        )
    return moved, reached, all_reached
