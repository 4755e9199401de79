"""Group normalisation of a sum, and SiLU, on a GPU. Formula and table: kernels/group_norm_silu.py.

A program owns a tile [PLACES, CHANNELS] of one group, of whatever memory order. A group that fits
one tile is normalised in one launch. Of a larger one the places are cut into blocks, with two
launches each way: the first leaves every block's mean and squares (forward) or its two sums
(gradient), the second combines them, every program the same few numbers in the same order, and
writes its tile. No atomics: the same bits every time. What is added to the map is added by the
first launch that reads it.

Tiles of several groups, whose rows are longer than ten channels' 20 bytes, were no faster on an
H100 (docs/log.md).

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

WHOLE = 4096
"""Elements of the largest tile that holds a whole group; larger ones are no faster, and spill."""

BLOCKS = 64
"""The least number of blocks for which kernels that combine them are compiled."""

_sized = triton.jit(
    do_not_specialize=[
        "apart",
        "places",
        "groups",
        "blocks",
        "count",
        "silu",
        "changed",
        "plus_place",
        "others",
    ]
)


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
def _added(
    x,
    change,
    plus,
    beside,
    total,
    changed,
    plus_entry,
    plus_place,
    own,
    x_place,
    others,
    others_place,
    channel_stride,
    places,
    group,
    groups,
    channel,
    entry,
    offsets,
    exists,
    PLACES: tl.constexpr,
):
    """Return the tile of s; where that is more than x, it is rounded and written first.

    changed: Whether there is a change.
    plus_entry, plus_place: Strides of what is added; the second is 0 where that is one number a
        channel, and -1 where nothing is.
    own, x_place: Channels of x and its stride between places.
    others, others_place: The same of what stands beside it.
    """
    place = (tl.program_id(1) * PLACES + tl.arange(0, PLACES))[:, None]
    which = (group // groups).to(tl.int64)
    channel = channel[None, :]
    mine = exists & (channel < own)
    here = which * own * places
    at = place * x_place + channel * channel_stride
    values = tl.load(x + here + at, mask=mine, other=0.0).to(tl.float32)
    if changed != 0:  # one after the other: together their addresses would spill
        values += tl.load(change + here + at, mask=mine, other=0.0).to(tl.float32)
    if plus_place >= 0:
        within = place * plus_place + channel * tl.where(plus_place > 0, channel_stride, 1)
        there = plus + which * plus_entry + within
        values += tl.load(there, mask=mine, other=0.0).to(tl.float32)
    if others != 0:
        there = beside + which * others * places + place * others_place
        there += (channel - own) * channel_stride
        values += tl.load(there, mask=exists & (channel >= own), other=0.0).to(tl.float32)
    if (changed != 0) | (plus_place >= 0) | (others != 0):
        rounded = values.to(total.dtype.element_ty)
        tl.store(total + entry + offsets, rounded, mask=exists)
        values = rounded.to(tl.float32)
    return values


@triton.jit
def _write(y, offsets, exists, n, scale, shift, silu):
    z = n * scale + shift
    z = tl.where(silu != 0, z / (1.0 + tl.exp(-z)), z)
    tl.store(y + offsets, z.to(y.dtype.element_ty), mask=exists)


@_sized
def whole_kernel(
    x,
    change,
    plus,
    beside,
    total,
    changed,
    plus_entry,
    plus_place,
    own,
    x_place,
    others,
    others_place,
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
    """Add up and normalise a group that the tile holds."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    values = _added(
        x,
        change,
        plus,
        beside,
        total,
        changed,
        plus_entry,
        plus_place,
        own,
        x_place,
        others,
        others_place,
        channel_stride,
        places,
        group,
        groups,
        channel,
        entry,
        offsets,
        exists,
        PLACES,
    )
    size = (places * units * VECTOR).to(tl.float32)
    near = _sum(values) / size
    apart = tl.where(exists, values - near, 0.0)
    rest = _sum(apart) / size  # what rounding has left out of a mean far from zero
    rstd = 1.0 / tl.sqrt(_sum(apart * apart) / size - rest * rest + eps)
    tl.store(statistics + group, near + rest)
    tl.store(statistics + count + group, rstd)
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    _write(y + entry, offsets, exists, (apart - rest) * rstd, scale, shift, silu)


@_sized
def statistics_kernel(
    x,
    change,
    plus,
    beside,
    total,
    changed,
    plus_entry,
    plus_place,
    own,
    x_place,
    others,
    others_place,
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
    """Add up the block; write its mean and its sum of squares about that mean."""
    group, channel, entry, offsets, exists = _tile(
        entry_stride, channel_stride, place_stride, places, units, groups, CHANNELS, PLACES, VECTOR
    )
    values = _added(
        x,
        change,
        plus,
        beside,
        total,
        changed,
        plus_entry,
        plus_place,
        own,
        x_place,
        others,
        others_place,
        channel_stride,
        places,
        group,
        groups,
        channel,
        entry,
        offsets,
        exists,
        PLACES,
    )
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
    values = tl.load(x + entry + offsets, mask=exists, other=0.0).to(tl.float32)
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
    variance = (tl.sum(squares, axis=0) + tl.sum(counts * apart * apart, axis=0)) / total
    rstd = 1.0 / tl.sqrt(variance + eps)
    if tl.program_id(1) == 0:
        tl.store(statistics + group, mean)
        tl.store(statistics + count + group, rstd)
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    _write(y + entry, offsets, exists, (values - mean) * rstd, scale, shift, silu)


@triton.jit
def _keep(values, elsewhere, found, apart, entry, offsets, exists):
    """Write the gradient of s: values, and what s gets elsewhere, if it is apart."""
    if apart != 0:
        there = elsewhere + entry + offsets
        values += tl.load(there, mask=exists, other=0.0).to(tl.float32)
    tl.store(found + entry + offsets, values.to(found.dtype.element_ty), mask=exists)


@triton.jit
def _u_and_n(gradient, x, mean, rstd, entry, offsets, exists, scale, shift, silu):
    """Return u and n of the formula on the tile; outside it u is zero."""
    values = tl.load(x + entry + offsets, mask=exists, other=0.0).to(tl.float32)
    n = (values - mean) * rstd
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
    elsewhere,
    found,
    apart,
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
    mean_of = tl.load(mean + group)
    rstd_of = tl.load(rstd + group)
    u, n = _u_and_n(gradient, x, mean_of, rstd_of, entry, offsets, exists, scale, shift, silu)
    total = (places * units * VECTOR).to(tl.float32)
    values = (u - _sum(u) / total - n * (_sum(u * n) / total)) * rstd_of
    _keep(values, elsewhere, found, apart, entry, offsets, exists)


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
    mean_of = tl.load(mean + group)
    rstd_of = tl.load(rstd + group)
    u, n = _u_and_n(gradient, x, mean_of, rstd_of, entry, offsets, exists, scale, shift, silu)
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
    elsewhere,
    found,
    apart,
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
    scale, shift = _weights(weight, bias, channel, units, CHANNELS, VECTOR)
    mean_of = tl.load(mean + group)
    rstd_of = tl.load(rstd + group)
    block = tl.arange(0, BLOCKS)
    here = parts + (group * blocks + block) * 2
    total = (places * units * VECTOR).to(tl.float32)
    mean_u = tl.sum(tl.load(here, mask=block < blocks, other=0.0), axis=0) / total
    mean_un = tl.sum(tl.load(here + 1, mask=block < blocks, other=0.0), axis=0) / total
    u, n = _u_and_n(gradient, x, mean_of, rstd_of, entry, offsets, exists, scale, shift, silu)
    values = (u - mean_u - n * mean_un) * rstd_of
    _keep(values, elsewhere, found, apart, entry, offsets, exists)


@dataclass(frozen=True)
class _Tiling:
    """How the groups of a map are cut.

    Attributes:
        whole: Whether a tile holds a group.
        wide: CHANNELS of a tile: a group's, as a power of two.
        tall: PLACES of a tile.
        vector: VECTOR: what divides a group's channels, as far as loads can use it.
        blocks: Tiles of a group.
        warps: Of a program.
        sizes: The kernels' arguments from entry_stride to groups.
    """

    whole: bool
    wide: int
    tall: int
    vector: int
    blocks: int
    warps: int
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor, groups: int, last: bool) -> "_Tiling":
        """Cut a map into tiles; last: whether it is channels_last, else it is contiguous."""
        places = x.shape[2] * x.shape[3]
        channels = x.shape[1] // groups
        vector = min(channels & -channels, 8)
        wide = triton.next_power_of_2(channels)
        strides = (1, x.shape[1]) if last else (places, 1)
        sizes = (x.shape[1] * places, *strides, places, channels // vector, groups)
        tall = triton.next_power_of_2(places)
        if wide * tall <= WHOLE:
            return cls(True, wide, tall, vector, 1, max(wide * tall // 512, 4), sizes)
        tall = max(ELEMENTS // wide, 1)
        return cls(False, wide, tall, vector, triton.cdiv(places, tall), 8, sizes)

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
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
    change: Tensor | None = None,
    plus: Tensor | None = None,
    beside: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return s, y and statistics, without waiting; s is x itself where nothing is added.

    x, the change, what stands beside and a `plus` that is a map lie alike, channels_last or
    contiguous; a `plus` of one number a channel is contiguous.
    """
    own = x.shape[1]
    others = 0 if beside is None else beside.shape[1]
    last = x.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    size = (x.shape[0], own + others, *x.shape[2:])
    plain = change is None and plus is None and beside is None
    total = x if plain else torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)
    tiling = _Tiling.of(total, groups, last)
    added = (
        x,
        x if change is None else change,
        x if plus is None else plus,
        x if beside is None else beside,
        total,
        int(change is not None),
        *_strides_of(plus, own if last else 1),
        own,
        own if last else 1,
        others,
        others if last else 1,
    )
    count = x.shape[0] * groups
    blocks = tiling.blocks
    y = torch.empty_like(total)
    statistics = torch.empty(2, x.shape[0], groups, dtype=torch.float32, device=x.device)
    rest = (statistics, count, eps, int(silu), *tiling.sizes)
    if tiling.whole:
        whole_kernel[(count, 1)](*added, y, weight, bias, *rest, **tiling.fixed)
        return total, y, statistics
    parts = torch.empty(count, blocks, 2, dtype=torch.float32, device=x.device)
    grid = (count, blocks)
    statistics_kernel[grid](*added, parts, *tiling.sizes, blocks, **tiling.fixed)
    apply_kernel[grid](
        total, y, weight, bias, parts, *rest, blocks, BLOCKS=tiling.combined, **tiling.fixed
    )
    return total, y, statistics


def _strides_of(plus: Tensor | None, place_stride: int) -> tuple[int, int]:
    """Return what is added's strides between entries and between places, as `_added` takes them."""
    if plus is None:
        return 0, -1
    entry = 0 if plus.shape[0] == 1 else plus[0].numel()
    return entry, 0 if plus.shape[2:] == (1, 1) else place_stride


def backward(
    gradient: Tensor,
    elsewhere: Tensor | None,
    total: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    silu: bool,
) -> Tensor:
    """Return the gradient of s, from that of y and what s gets elsewhere."""
    groups = statistics.shape[2]
    last = total.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    tiling = _Tiling.of(total, groups, last)
    count = total.shape[0] * groups
    blocks = tiling.blocks
    gradient = gradient.contiguous(memory_format=order)
    found = torch.empty_like(total)
    given = (gradient, total, weight, bias, *statistics.contiguous())
    wanted = (
        gradient if elsewhere is None else elsewhere.contiguous(memory_format=order),
        found,
        int(elsewhere is not None),
    )
    rest = (int(silu), *tiling.sizes)
    if tiling.whole:
        whole_gradient_kernel[(count, 1)](*given, *wanted, *rest, **tiling.fixed)
        return found
    parts = torch.empty(count, blocks, 2, dtype=torch.float32, device=total.device)
    grid = (count, blocks)
    gradient_sums_kernel[grid](*given, parts, *rest, blocks, **tiling.fixed)
    gradient_kernel[grid](
        *given, parts, *wanted, *rest, blocks, BLOCKS=tiling.combined, **tiling.fixed
    )
    return found
