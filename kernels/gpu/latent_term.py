"""The mask term on a GPU. Formula and table: kernels/latent_term.py.

One program owns `BLOCK` places of one entry, in all channels.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["latent_term_kernel", "launch"]

BLOCK = 256
WARPS = 4


@triton.jit
def latent_term_kernel(
    noise,
    original,
    keep,
    gradient,
    partial,
    channels,
    places,
    columns,
    noise_entry,
    noise_channel,
    noise_row,
    noise_column,
    original_entry,
    original_channel,
    original_row,
    original_column,
    keep_entry,
    keep_row,
    keep_column,
    gradient_entry,
    gradient_channel,
    gradient_row,
    gradient_column,
    slope,
    lam,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entry = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = place // columns
    column = place % columns
    inside = place < places
    kept = slope * tl.load(
        keep + entry * keep_entry + row * keep_row + column * keep_column, mask=inside, other=0.0
    ).to(tl.float32)
    channel = tl.arange(0, CHANNELS)[:, None]
    there = inside[None, :] & (channel < channels)
    at_noise = (
        entry * noise_entry
        + channel * noise_channel
        + (row * noise_row + column * noise_column)[None, :]
    )
    at_original = (
        entry * original_entry
        + channel * original_channel
        + (row * original_row + column * original_column)[None, :]
    )
    at_gradient = (
        entry * gradient_entry
        + channel * gradient_channel
        + (row * gradient_row + column * gradient_column)[None, :]
    )
    now = tl.load(noise + at_noise, mask=there, other=0.0).to(tl.float32)
    before = tl.load(original + at_original, mask=there, other=0.0).to(tl.float32)
    moved = kept[None, :] * (now - before)
    sign = (moved > 0).to(tl.float32) - (moved < 0).to(tl.float32)
    tl.store(gradient + at_gradient, lam * kept[None, :] * sign, mask=there)
    by_place = tl.sum(tl.abs(moved), axis=0)
    tl.store(
        partial + entry * tl.num_programs(0) + tl.program_id(0), lam * tl.sum(by_place, axis=0)
    )


def launch(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return loss, float32 [], and gradient, for dtypes of at most float32 and any strides."""
    entries, channels, rows, columns = noise.shape
    gradient = torch.empty_like(noise)
    blocks = triton.cdiv(rows * columns, BLOCK)
    partial = noise.new_empty((entries, blocks), dtype=torch.float32)
    of_entry = keep.stride(0) if keep.shape[0] > 1 else 0
    latent_term_kernel[(blocks, entries)](
        noise,
        original,
        keep,
        gradient,
        partial,
        channels,
        rows * columns,
        columns,
        *noise.stride(),
        *original.stride(),
        of_entry,
        *keep.stride()[2:],
        *gradient.stride(),
        slope,
        lam,
        CHANNELS=triton.next_power_of_2(channels),
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
    return partial.sum(), gradient
