"""Group normalisation and SiLU on a GPU. Formula and table: kernels/group_norm_silu.py.

A program owns a tile [PLACES, CHANNELS] of one group, of whatever memory order. A group that fits
one tile is normalised in one launch. Of a larger one the places are cut into blocks, with two
launches each way: the first leaves every block's mean and squares (forward) or its two sums
(gradient), the second combines them, every program the same few numbers in the same order, and
writes its tile. No atomics: the same bits every time.

Whatever need not be known to a compiler is an argument that it does not specialise, so that a
network needs few kernels: they are compiled one after another before a first edit.
"""

from dataclasses import dataclass

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
    "whole_gradient_kernel",
    "whole_kernel",
]

ELEMENTS = 4096
"""Elements of a block's tile: 16 registers for a thread and a map."""

WHOLE = 32768
"""Bytes of the largest tile that holds a whole group: more would spill."""

BLOCKS = 64
"""The least number of blocks for which kernels that combine them are compiled."""

_sized = triton.jit(do_not_specialize=["places", "groups", "blocks", "count", "silu"])


@triton.jit
def _tile(
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Return this program's (group, channel [CHANNELS], entry, offsets [PLACES, CHANNELS], exists).

    entry: Where the entry of the batch begins: apart, because offsets of 64 bits would spill.
    units: The group's channels in vectors; a compiler sees that they are multiples of VECTOR.
    exists: Which of the offsets lie in the map.
    """
    channels = units * VECTOR
    group = tl.program_id(0)
    place = tl.program_id(1) * PLACES + tl.arange(0, PLACES)
    within = tl.arange(0, CHANNELS)
    channel = (group % groups) * channels + within
    entry = (group // groups).to(tl.int64) * entry_stride
    offsets = place[:, None] * place_stride + channel[None, :] * channel_stride
    exists = (place[:, None] < places) & (within[None, :] < channels)
    return group, channel, entry, offsets, exists


@triton.jit
def _weights(weight, bias, channel, units, CHANNELS: tl.constexpr, VECTOR: tl.constexpr):
    """Return the channels' scale and shift, [1, CHANNELS]."""
    known = tl.arange(0, CHANNELS) < units * VECTOR
    scale = tl.load(weight + channel, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(bias + channel, mask=known, other=0.0).to(tl.float32)
    return scale[None, :], shift[None, :]


@triton.jit
def _sum(tile):
    return tl.sum(tl.sum(tile, axis=1), axis=0)


@triton.jit
def _write(y, offsets, exists, n, scale, shift, silu):
    z = n * scale + shift
    z = tl.where(silu != 0, z / (1.0 + tl.exp(-z)), z)
    tl.store(y + offsets, z.to(y.dtype.element_ty), mask=exists)


@_sized
def whole_kernel(
    x,
    y,
    weight,
    bias,
    statistics,
    count,
    eps,
    silu,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Normalise a group that the tile holds."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    values = tl.load(x + entry + offsets, mask=exists, other=0.0).to(tl.float32)
    total = (places * units * VECTOR).to(tl.float32)
    near = _sum(values) / total
    apart = tl.where(exists, values - near, 0.0)
    rest = _sum(apart) / total  # what rounding has left out of a mean far from zero
    rstd = 1.0 / tl.sqrt(_sum(apart * apart) / total - rest * rest + eps)
    tl.store(statistics + group, near + rest)
    tl.store(statistics + count + group, rstd)
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    _write(y + entry, offsets, exists, (apart - rest) * rstd, scale, shift, silu)


@_sized
def statistics_kernel(
    x,
    parts,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Write the block's mean and its sum of squares about that mean."""
    group, _, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    values = tl.load(x + entry + offsets, mask=exists, other=0.0).to(tl.float32)
    block = tl.program_id(1)
    count = (tl.minimum(PLACES, places - block * PLACES) * units * VECTOR).to(tl.float32)
    mean = _sum(values) / count
    apart = tl.where(exists, values - mean, 0.0)
    squares = _sum(apart * apart)
    here = parts + (group * blocks + block) * 2
    tl.store(here, mean)
    tl.store(here + 1, squares)


@_sized
def apply_kernel(
    x,
    y,
    weight,
    bias,
    parts,
    statistics,
    count,
    eps,
    silu,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Combine the blocks of the group (Chan et al. 1979) and normalise the program's own."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    block = tl.arange(0, BLOCKS)
    there = block < blocks
    means = tl.load(parts + (group * blocks + block) * 2, mask=there, other=0.0)
    squares = tl.load(parts + (group * blocks + block) * 2 + 1, mask=there, other=0.0)
    counts = tl.where(there, tl.minimum(PLACES, places - block * PLACES) * units * VECTOR, 0)
    counts = counts.to(tl.float32)
    total = (places * units * VECTOR).to(tl.float32)
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
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    values = tl.load(x + entry + offsets, mask=exists, other=0.0).to(tl.float32)
    _write(y + entry, offsets, exists, (values - mean) * rstd, scale, shift, silu)


@triton.jit
def _u_and_n(gradient, x, mean, rstd, group, entry, offsets, exists, scale, shift, silu):
    """Return u and n of the formula on the tile, zero outside it."""
    values = tl.load(x + entry + offsets, mask=exists, other=0.0).to(tl.float32)
    n = tl.where(exists, (values - tl.load(mean + group)) * tl.load(rstd + group), 0.0)
    u = tl.load(gradient + entry + offsets, mask=exists, other=0.0).to(tl.float32) * scale
    z = n * scale + shift
    s = 1.0 / (1.0 + tl.exp(-z))
    return tl.where(silu != 0, u * s * (1.0 + z * (1.0 - s)), u), n


@_sized
def whole_gradient_kernel(
    gradient,
    x,
    weight,
    bias,
    mean,
    rstd,
    found,
    silu,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Write the gradient of a group that the tile holds."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    u, n = _u_and_n(gradient, x, mean, rstd, group, entry, offsets, exists, scale, shift, silu)
    total = (places * units * VECTOR).to(tl.float32)
    values = (u - _sum(u) / total - n * (_sum(u * n) / total)) * tl.load(rstd + group)
    tl.store(found + entry + offsets, values.to(found.dtype.element_ty), mask=exists)


@_sized
def gradient_sums_kernel(
    gradient,
    x,
    weight,
    bias,
    mean,
    rstd,
    parts,
    silu,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
):
    """Write the block's sums of u and of u n."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    u, n = _u_and_n(gradient, x, mean, rstd, group, entry, offsets, exists, scale, shift, silu)
    here = parts + (group * blocks + tl.program_id(1)) * 2
    tl.store(here, _sum(u))
    tl.store(here + 1, _sum(u * n))


@_sized
def gradient_kernel(
    gradient,
    x,
    weight,
    bias,
    mean,
    rstd,
    parts,
    found,
    silu,
    entry_stride,
    channel_stride,
    place_stride,
    places,
    units,
    groups,
    blocks,
    CHANNELS: tl.constexpr,
    PLACES: tl.constexpr,
    VECTOR: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """Combine the blocks' sums and write the gradient of the program's own."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    block = tl.arange(0, BLOCKS)
    here = parts + (group * blocks + block) * 2
    total = (places * units * VECTOR).to(tl.float32)
    mean_u = tl.sum(tl.load(here, mask=block < blocks, other=0.0), axis=0) / total
    mean_un = tl.sum(tl.load(here + 1, mask=block < blocks, other=0.0), axis=0) / total
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    u, n = _u_and_n(gradient, x, mean, rstd, group, entry, offsets, exists, scale, shift, silu)
    values = (u - mean_u - n * mean_un) * tl.load(rstd + group)
    tl.store(found + entry + offsets, values.to(found.dtype.element_ty), mask=exists)


@dataclass(frozen=True)
class _Tiling:
    """How the groups of a map are cut.

    Attributes:
        wide: CHANNELS of a tile: a group's, as a power of two.
        tall: PLACES of a tile.
        vector: VECTOR: what divides a group's channels, as far as loads can use it.
        blocks: Tiles of a group; 1 where it is normalised in one launch.
        warps: Of a program.
        sizes: The kernels' arguments from entry_stride to groups.
    """

    wide: int
    tall: int
    vector: int
    blocks: int
    warps: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor, groups: int) -> "_Tiling":
        """Cut a map into tiles."""
        places = x.shape[2] * x.shape[3]
        channels = x.shape[1] // groups
        vector = min(channels & -channels, 8)
        wide = triton.next_power_of_2(channels)
        of_places = x.stride(3) if x.shape[3] > 1 else x.stride(2)
        strides = x.stride(0), x.stride(1), of_places
        sizes = (*strides, places, channels // vector, groups)
        tall = triton.next_power_of_2(places)
        if wide * tall * x.element_size() <= WHOLE:
            warps = min(max(wide * tall // 512, 4), 16)
            return cls(wide, tall, vector, 1, warps, sizes)
        tall = max(ELEMENTS // wide, 1)
        return cls(wide, tall, vector, triton.cdiv(places, tall), 8, sizes)

    @property
    def fixed(self) -> dict[str, int]:
        """What every kernel is compiled for."""
        return {
            "CHANNELS": self.wide,
            "PLACES": self.tall,
            "VECTOR": self.vector,
            "num_warps": self.warps,
        }

    @property
    def combined(self) -> int:
        """BLOCKS of the kernels that combine them."""
        return max(BLOCKS, int(triton.next_power_of_2(self.blocks)))


def forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    """Return y and statistics, without waiting; x is channels_last or contiguous."""
    tiling = _Tiling.of(x, groups)
    count = x.shape[0] * groups
    blocks = tiling.blocks
    y = torch.empty_like(x)
    statistics = torch.empty(2, x.shape[0], groups, dtype=torch.float32, device=x.device)
    last = (statistics, count, eps, int(silu), *tiling.sizes)
    if blocks == 1:
        whole_kernel[(count, 1)](x, y, weight, bias, *last, **tiling.fixed)
        return y, statistics
    parts = torch.empty(count, blocks, 2, dtype=torch.float32, device=x.device)
    grid = (count, blocks)
    statistics_kernel[grid](x, parts, *tiling.sizes, blocks, **tiling.fixed)
    apply_kernel[grid](
        x, y, weight, bias, parts, *last, blocks, BLOCKS=tiling.combined, **tiling.fixed
    )
    return y, statistics


def backward(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    """Return the gradient of x, from that of y."""
    groups = statistics.shape[2]
    tiling = _Tiling.of(x, groups)
    count = x.shape[0] * groups
    blocks = tiling.blocks
    channels_last = x.is_contiguous(memory_format=torch.channels_last)
    gradient = gradient.contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    found = torch.empty_like(x)
    given = (gradient, x, weight, bias, *statistics.contiguous())
    last = (int(silu), *tiling.sizes)
    if blocks == 1:
        whole_gradient_kernel[(count, 1)](*given, found, *last, **tiling.fixed)
        return found
    parts = torch.empty(count, blocks, 2, dtype=torch.float32, device=x.device)
    grid = (count, blocks)
    gradient_sums_kernel[grid](*given, parts, *last, blocks, **tiling.fixed)
    gradient_kernel[grid](
        *given, parts, found, *last, blocks, BLOCKS=tiling.combined, **tiling.fixed
    )
    return found
