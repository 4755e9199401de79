"""Group normalisation and SiLU on a GPU. Formula and table: kernels/group_norm_silu.py.

The places of a map are cut into blocks, and a program owns one block of one group: a tile
[PLACES, CHANNELS] of whatever memory order. Two launches each way: the first leaves every block's
mean and squares (forward) or its two sums (gradient), the second combines them, every program the
same few numbers in the same order, and writes its tile. No atomics: the same bits every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = [
    "apply_kernel",
    "backward",
    "forward",
    "gradient_kernel",
    "gradient_sums_kernel",
    "statistics_kernel",
]

ELEMENTS = 4096
"""Elements of a tile: 16 registers for a thread and a map."""

WARPS = 8


@triton.jit
def _tile(
    entry_stride,
    channel_stride,
    place_stride,
    places,
    channels,
    groups,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Return this program's (group, channels [CHANNELS], offsets [PLACES, CHANNELS], exists).

    exists: Which of the offsets lie in the map.
    """
    group = tl.program_id(0)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    within = tl.arange(0, CHANNELS)
    channel = (group % groups) * channels + within
    start = (group // groups).to(tl.int64) * entry_stride
    offsets = start + place[:, None] * place_stride + channel[None, :] * channel_stride
    exists = (place[:, None] < places) & (within[None, :] < channels)
    return group, channel, offsets, exists


@triton.jit
def statistics_kernel(
    x,
    parts,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    channels,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
):
    """Write the block's mean and its sum of squares about that mean."""
    group, _, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, channels, groups, CHANNELS, PLACES
    )
    values = tl.load(x + offsets, mask=exists, other=0.0).to(tl.float32)
    block = tl.program_id(1)
    count = (tl.minimum(PLACES, places - block * PLACES) * channels).to(tl.float32)
    mean = tl.sum(tl.sum(values, axis=1), axis=0) / count
    apart = tl.where(exists, values - mean, 0.0)
    squares = tl.sum(tl.sum(apart * apart, axis=1), axis=0)
    here = parts + (group * blocks + block) * 2
    tl.store(here, mean)
    tl.store(here + 1, squares)


@triton.jit
def apply_kernel(
    x,
    y,
    weight,
    bias,
    parts,
    statistics,
    count,
    eps,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    channels,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCKS: tl.constexpr,
    SILU: tl.constexpr,
):
    """Combine the blocks of the group (Chan et al. 1979) and normalise the program's own."""
    group, channel, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, channels, groups, CHANNELS, PLACES
    )
    block = tl.arange(0, BLOCKS)
    there = block < blocks
    means = tl.load(parts + (group * blocks + block) * 2, mask=there, other=0.0)
    squares = tl.load(parts + (group * blocks + block) * 2 + 1, mask=there, other=0.0)
    counts = tl.where(there, tl.minimum(PLACES, places - block * PLACES) * channels, 0).to(
        tl.float32
    )
    total = (places * channels).to(tl.float32)
    first = tl.sum(tl.where(block == 0, means, 0.0), axis=0)
    mean = first + tl.sum(counts * (means - first), axis=0) / total
    apart = means - mean
    variance = (
        tl.sum(tl.where(there, squares, 0.0), axis=0) + tl.sum(counts * apart * apart, axis=0)
    ) / total
    rstd = 1.0 / tl.sqrt(variance + eps)
    if tl.program_id(1) == 0:
        tl.store(statistics + group, mean)
        tl.store(statistics + count + group, rstd)
    known = tl.arange(0, CHANNELS) < channels
    scale = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    values = tl.load(x + offsets, mask=exists, other=0.0).to(tl.float32)
    z = (values - mean) * rstd * scale[None, :] + shift[None, :]
    if SILU:
        z = z / (1.0 + tl.exp(-z))
    tl.store(y + offsets, z.to(y.dtype.element_ty), mask=exists)


@triton.jit
def _u_and_n(
    gradient,
    x,
    weight,
    bias,
    mean,
    rstd,
    group,
    channel,
    offsets,
    exists,
    channels,
    CHANNELS: tl.constexpr,
    SILU: tl.constexpr,
):
    """Return u and n of the formula on the tile, zero outside it."""
    known = tl.arange(0, CHANNELS) < channels
    scale = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    values = tl.load(x + offsets, mask=exists, other=0.0).to(tl.float32)
    n = tl.where(exists, (values - tl.load(mean + group)) * tl.load(rstd + group), 0.0)
    u = tl.load(gradient + offsets, mask=exists, other=0.0).to(tl.float32) * scale[None, :]
    if SILU:
        shift = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
        z = n * scale[None, :] + shift[None, :]
        s = 1.0 / (1.0 + tl.exp(-z))
        u = u * s * (1.0 + z * (1.0 - s))
    return u, n


@triton.jit
def gradient_sums_kernel(
    gradient,
    x,
    weight,
    bias,
    mean,
    rstd,
    parts,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    channels,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    SILU: tl.constexpr,
):
    """Write the block's sums of u and of u n."""
    group, channel, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, channels, groups, CHANNELS, PLACES
    )
    u, n = _u_and_n(
        gradient,
        x,
        weight,
        bias,
        mean,
        rstd,
        group,
        channel,
        offsets,
        exists,
        channels,
        CHANNELS,
        SILU,
    )
    here = parts + (group * blocks + tl.program_id(1)) * 2
    tl.store(here, tl.sum(tl.sum(u, axis=1), axis=0))
    tl.store(here + 1, tl.sum(tl.sum(u * n, axis=1), axis=0))


@triton.jit
def gradient_kernel(
    gradient,
    x,
    weight,
    bias,
    mean,
    rstd,
    parts,
    found,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    channels,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    BLOCKS: tl.constexpr,
    SILU: tl.constexpr,
):
    group, channel, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, channels, groups, CHANNELS, PLACES
    )
    block = tl.arange(0, BLOCKS)
    there = block < blocks
    total = (places * channels).to(tl.float32)
    mean_u = (
        tl.sum(tl.load(parts + (group * blocks + block) * 2, mask=there, other=0.0), axis=0) / total
    )
    mean_un = (
        tl.sum(tl.load(parts + (group * blocks + block) * 2 + 1, mask=there, other=0.0), axis=0)
        / total
    )
    u, n = _u_and_n(
        gradient,
        x,
        weight,
        bias,
        mean,
        rstd,
        group,
        channel,
        offsets,
        exists,
        channels,
        CHANNELS,
        SILU,
    )
    values = (u - mean_u - n * mean_un) * tl.load(rstd + group)
    tl.store(found + offsets, values.to(found.dtype.element_ty), mask=exists)


def _tiling(x: Tensor, groups: int) -> tuple[int, int, int, int, int]:
    """Return (places, channels of a group, CHANNELS, PLACES, blocks)."""
    places = x.shape[2] * x.shape[3]
    channels = x.shape[1] // groups
    wide = triton.next_power_of_2(channels)
    tall = min(triton.next_power_of_2(places), max(ELEMENTS // wide, 1))
    return places, channels, wide, tall, triton.cdiv(places, tall)


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Return the strides of entries, channels and places."""
    of_places = x.stride(3) if x.shape[3] > 1 else x.stride(2)
    return x.stride(0), x.stride(1), of_places


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    """Return y and statistics, without waiting; x is channels_last or contiguous."""
    places, channels, wide, tall, blocks = _tiling(x, groups)
    count = x.shape[0] * groups
    y = torch.empty_like(x)
    parts = torch.empty(count, blocks, 2, dtype=torch.float32, device=x.device)
    statistics = torch.empty(2, x.shape[0], groups, dtype=torch.float32, device=x.device)
    grid = (count, blocks)
    sizes = (*_strides(x), places, channels, groups, blocks)
    statistics_kernel[grid](x, parts, *sizes, CHANNELS=wide, PLACES=tall, num_warps=WARPS)
    apply_kernel[grid](
        x,
        y,
        weight,
        bias,
        parts,
        statistics,
        count,
        eps,
        *sizes,
        CHANNELS=wide,
        PLACES=tall,
        BLOCKS=triton.next_power_of_2(blocks),
        SILU=silu,
        num_warps=WARPS,
    )
    return y, statistics


def backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    """Return the gradient of x, from that of y."""
    groups = statistics.shape[2]
    places, channels, wide, tall, blocks = _tiling(x, groups)
    count = x.shape[0] * groups
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    found = torch.empty_like(x)
    parts = torch.empty(count, blocks, 2, dtype=torch.float32, device=x.device)
    grid = (count, blocks)
    given = (gradient, x, weight, bias, *statistics.contiguous(), parts)
    sizes = (*_strides(x), places, channels, groups, blocks)
    gradient_sums_kernel[grid](
        *given, *sizes, CHANNELS=wide, PLACES=tall, SILU=silu, num_warps=WARPS
    )
    gradient_kernel[grid](
        *given,
        found,
        *sizes,
        CHANNELS=wide,
        PLACES=tall,
        BLOCKS=triton.next_power_of_2(blocks),
        SILU=silu,
        num_warps=WARPS,
    )
    return found
