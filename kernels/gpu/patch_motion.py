"""Motion supervision on a GPU. Formula and table: kernels/patch_motion.py.

A program owns `CHANNELS` channels on one tile, `TILE` by `TILE`, of the small map. It visits the
points in their order, passes over those that have arrived or do not touch the tile, and compares
`POSITIONS` positions of a patch at a time. Its part of the gradient is `sign @ weight`, kept in
float32 and written once, in the map's dtype. A point's part of the loss is counted by the one tile
that holds the first small row and column under the shifted patch. Programs share nothing: one
launch, and one small sum of their parts of the loss, in a fixed order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["launch", "patch_motion_kernel"]

CHANNELS = 16
TILE = 8
POSITIONS = 16
WARPS = 8
REGISTERS = 128
"""Registers a thread at most. Left alone, the assembler takes 80 on some GPUs and spills."""


@triton.jit
def patch_motion_kernel(
    features,
    gradient,
    parts,
    handles,
    targets,
    points,
    channels,
    map_rows,
    map_columns,
    feature_channel_stride,
    feature_row_stride,
    feature_column_stride,
    gradient_channel_stride,
    gradient_row_stride,
    gradient_column_stride,
    rows,
    columns,
    radius,
    REACHED: tl.constexpr,
    DEAD_ZONE: tl.constexpr,
    CHANNELS: tl.constexpr,
    TILE: tl.constexpr,
    POSITIONS: tl.constexpr,
):
    across = tl.cdiv(map_columns, TILE)
    tile_row, tile_column = tl.program_id(1) // across * TILE, tl.program_id(1) % across * TILE
    pixel = tl.arange(0, TILE * TILE)[None, :]
    pixel_row, pixel_column = tile_row + pixel // TILE, tile_column + pixel % TILE
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[:, None]
    features += tl.cast(channel, tl.int64) * feature_channel_stride
    side = 2 * radius + 1
    slope = tl.zeros((CHANNELS, TILE * TILE), tl.float32)
    loss = tl.zeros((CHANNELS, POSITIONS), tl.float32)
    for point in range(points):
        row, column = tl.load(handles + 2 * point), tl.load(handles + 2 * point + 1)
        down = tl.cast(tl.load(targets + 2 * point) - row, tl.float32)
        right = tl.cast(tl.load(targets + 2 * point + 1) - column, tl.float32)
        distance = tl.sqrt_rn(down * down + right * right)
        if distance >= REACHED:
            along_rows = _walk(row, tl.div_rn(down, distance), radius, map_rows, rows)
            along_columns = _walk(column, tl.div_rn(right, distance), radius, map_columns, columns)
            top, bottom = _cover(along_rows, side)
            left, end = _cover(along_columns, side)
            if (
                (top < tile_row + TILE)
                & (bottom >= tile_row)
                & (left < tile_column + TILE)
                & (end >= tile_column)
            ):
                counts = (top >= tile_row) & (left >= tile_column)
                for first in tl.range(0, side * side, POSITIONS, num_stages=1):
                    position = first + tl.arange(0, POSITIONS)
                    mask = (channel < channels) & (position < side * side)[None, :]
                    row_taps = _all_taps(along_rows, position // side)
                    column_taps = _all_taps(along_columns, position % side)
                    difference, sign = _compare(
                        features,
                        row_taps,
                        column_taps,
                        feature_row_stride,
                        feature_column_stride,
                        mask,
                        DEAD_ZONE,
                    )
                    loss += tl.where(counts, difference, 0.0)
                    weight = _weights(row_taps, pixel_row) * _weights(column_taps, pixel_column)
                    slope = tl.dot(sign, weight, slope, input_precision="ieee")
    tl.store(
        parts + tl.program_id(0) * tl.num_programs(1) + tl.program_id(1), tl.sum(loss) / channels
    )
    gradient += tl.cast(channel, tl.int64) * gradient_channel_stride
    gradient += pixel_row * gradient_row_stride + pixel_column * gradient_column_stride
    mask = (channel < channels) & (pixel_row < map_rows) & (pixel_column < map_columns)
    tl.store(gradient, (slope / channels).to(gradient.dtype.element_ty), mask=mask)


@triton.jit
def _walk(handle, direction, radius, size_small, size_large):
    """Return one axis of a point: (source, shifted, fraction, size_small, size_large).

    source, shifted: The whole positions where its patch and the shifted patch begin.
    fraction: How much further the shifted patch begins.
    """
    source, _ = _split(tl.cast(handle, tl.float32) - radius, radius, size_large)
    shifted, fraction = _split(tl.cast(handle, tl.float32) + direction - radius, radius, size_large)
    return source, shifted, fraction, size_small, size_large


@triton.jit
def _split(first, radius, size_large):
    """Return whole part and fraction. Further out than a whole patch, all places are the same."""
    whole = tl.floor(first)
    bounded = tl.minimum(tl.maximum(whole, -2.0 - 2 * radius), tl.cast(size_large, tl.float32))
    return tl.cast(bounded, tl.int32), first - whole


@triton.jit
def _tap(position, size_small, size_large):
    """Return (lower, upper, fraction) of whole positions, clamped into the upsampled map.

    Whole numbers up to the last division, as in bilinear.py.
    """
    position = tl.minimum(tl.maximum(position, 0), size_large - 1)
    denominator = 2 * size_large
    numerator = tl.maximum((2 * position + 1) * size_small - size_large, 0)
    numerator = tl.minimum(numerator, denominator * (size_small - 1))
    lower = numerator // denominator
    fraction = tl.div_rn(
        tl.cast(numerator % denominator, tl.float32), tl.cast(denominator, tl.float32)
    )
    return lower, tl.minimum(lower + 1, size_small - 1), fraction


@triton.jit
def _cover(axis, side):
    """Return the first and the last small row (or column) under the shifted patch."""
    _, shifted, _, size_small, size_large = axis
    first, _, _ = _tap(shifted, size_small, size_large)
    _, last, _ = _tap(shifted + side, size_small, size_large)
    return first, last


@triton.jit
def _all_taps(axis, k):
    """Return the taps of position k [POSITIONS] of a patch.

    That is the tap of the source, the two taps that the shifted position lies between, and the
    fraction between them.
    """
    source, shifted, fraction, size_small, size_large = axis
    here, after = (
        _tap(shifted + k, size_small, size_large),
        _tap(shifted + k + 1, size_small, size_large),
    )
    return _tap(source + k, size_small, size_large), here, after, fraction


@triton.jit
def _compare(
    features, row_taps, column_taps, row_stride, column_stride, mask, DEAD_ZONE: tl.constexpr
):
    """Return |shifted - source| and its sign, float32 [CHANNELS, POSITIONS] each.

    Both are zero in the dead zone.
    """
    row_source, above, below, down = row_taps
    column_source, left, right, across = column_taps
    source = _upsampled(features, row_source, column_source, row_stride, column_stride, mask)
    upper_left = _upsampled(features, above, left, row_stride, column_stride, mask)
    upper_right = _upsampled(features, above, right, row_stride, column_stride, mask)
    lower_left = _upsampled(features, below, left, row_stride, column_stride, mask)
    lower_right = _upsampled(features, below, right, row_stride, column_stride, mask)
    shifted = _mix(
        _mix(upper_left, upper_right, across), _mix(lower_left, lower_right, across), down
    )
    difference = shifted - source
    tied = tl.abs(difference) <= DEAD_ZONE * (tl.abs(shifted) + tl.abs(source))
    sign = tl.where(difference > 0, 1.0, -1.0)
    return tl.where(tied, 0.0, tl.abs(difference)), tl.where(tied, 0.0, sign)


@triton.jit
def _upsampled(features, row, column, row_stride, column_stride, mask):
    """Return the upsampled map at whole positions, float32 [CHANNELS, POSITIONS]."""
    upper, lower, down = row
    left, right, across = column
    across = across[None, :]
    above = features + (upper * row_stride)[None, :]
    below = features + (lower * row_stride)[None, :]
    to_left, to_right = (left * column_stride)[None, :], (right * column_stride)[None, :]
    return _mix(
        _mix(_value(above + to_left, mask), _value(above + to_right, mask), across),
        _mix(_value(below + to_left, mask), _value(below + to_right, mask), across),
        down[None, :],
    )


@triton.jit
def _value(pointer, mask):
    return tl.cast(tl.load(pointer, mask=mask, other=0.0), tl.float32)


@triton.jit
def _mix(a, b, fraction):
    """Mix two values; equal ones give their own value exactly."""
    return a + fraction * (b - a)


@triton.jit
def _weights(taps, at):
    """Return how much of the small row (or column) `at` [1, PIXELS] is in the shifted positions.

    float32 [POSITIONS, PIXELS].
    """
    _, here, after, fraction = taps
    return _whole_weights(here, at) * (1.0 - fraction) + _whole_weights(after, at) * fraction


@triton.jit
def _whole_weights(tap, at):
    lower, upper, fraction = tap
    fraction = fraction[:, None]
    return tl.where(lower[:, None] == at, 1.0 - fraction, 0.0) + tl.where(
        upper[:, None] == at, fraction, 0.0
    )


def launch(
    features: Tensor,
    handles: Tensor,
    targets: Tensor,
    resolution: tuple[int, int],
    radius: int,
    reached: float,
    tie: int,
) -> tuple[Tensor, Tensor]:
    """Return loss, float32 [], and gradient, as `features`, without waiting for the device.

    reached: Points nearer than this to their target do not count, in supervision pixels.
    tie: Units of rounding that count as zero.
    Raises ValueError for sizes whose products 32 bits cannot hold.
    """
    channels, map_rows, map_columns = features.shape
    rows, columns = resolution
    # Of a channel, in elements.
    extent = map_rows * features.stride(1) + map_columns * features.stride(2)
    if max(2 * (map_rows + 1) * rows, 2 * (map_columns + 1) * columns, extent) >= 2**31:
        raise ValueError(f"too large for 32 bits: {list(features.shape)} to {resolution}")
    gradient = torch.empty_like(features)
    tiles = triton.cdiv(map_rows, TILE) * triton.cdiv(map_columns, TILE)
    grid = (triton.cdiv(channels, CHANNELS), tiles)
    parts = torch.empty(grid, dtype=torch.float32, device=features.device)
    patch_motion_kernel[grid](
        features,
        gradient,
        parts,
        handles.contiguous(),
        targets.contiguous(),
        handles.shape[0],
        channels,
        map_rows,
        map_columns,
        *features.stride(),
        *gradient.stride(),
        rows,
        columns,
        radius,
        REACHED=reached,
        DEAD_ZONE=tie * torch.finfo(torch.float32).eps,
        CHANNELS=CHANNELS,
        TILE=TILE,
        POSITIONS=POSITIONS,
        num_warps=WARPS,
        maxnreg=REGISTERS,
    )
    return parts.sum(), gradient
