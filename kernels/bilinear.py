"""Bilinear upsampling as weights over the small map: a patch of the large map needs no large map.

A map of `size_small` rows that `torch.nn.functional.interpolate(mode="bilinear")` resizes to
`size_large` rows (corners not aligned) has in row r

    source = clamp((r + 1/2) * size_small / size_large - 1/2, 0, size_small - 1)
    i      = floor(source),  f = source - i
    up[r]  = (1 - f) * small[i] + f * small[min(i + 1, size_small - 1)]

so row r is one vector of `size_small` weights with at most two that are not zero. A *second*
bilinear, at a row p between two rows of the upsampled map, mixes two such vectors. The axes are
independent: a patch is `einsum("kh,chw,lw->ckl", rows, small, columns)`.

Weights are float64 if the positions are, else float32, whatever the map's dtype: bfloat16 could not
tell neighbouring rows apart. In float32 they are right to the last bit while
`2 * size_small * size_large < 2**24`. Nothing here waits for the device.
"""

import torch
from torch import Tensor

__all__ = ["shifted_weights", "upsample_weights"]


def upsample_weights(positions: Tensor, size_small: int, size_large: int) -> Tensor:
    """Return weights over the small map's rows that give whole rows of the upsampled map.

    Args:
        positions: [..., K], any real dtype, whole numbers; clamped to [0, size_large - 1].
        size_small: Rows before the upsampling, at least 1.
        size_large: Rows after it, at least 1; it may also be the smaller.

    Returns:
        [..., K, size_small], float64 if positions are, else float32; every row is >= 0 and sums
        to 1.

    Raises:
        ValueError: A size is below 1.
    """
    if size_small < 1 or size_large < 1:
        raise ValueError(f"sizes must be at least 1, got {size_small} -> {size_large}")
    rows = positions.to(_weight_dtype(positions)).clamp(0, size_large - 1)
    # `source` as a fraction of whole numbers, which floats hold exactly: only a division rounds.
    denominator = 2 * size_large
    numerator = ((2 * rows + 1) * size_small - size_large).clamp(0, denominator * (size_small - 1))
    lower = torch.div(numerator, denominator, rounding_mode="floor")
    fraction = ((numerator - lower * denominator) / denominator).unsqueeze(-1)
    upper = (lower + 1).clamp(max=size_small - 1)
    small_rows = torch.arange(size_small, device=positions.device, dtype=rows.dtype)
    at_lower = (small_rows == lower.unsqueeze(-1)).to(rows.dtype)
    at_upper = (small_rows == upper.unsqueeze(-1)).to(rows.dtype)
    return at_lower * (1 - fraction) + at_upper * fraction


def shifted_weights(first: Tensor, count: int, size_small: int, size_large: int) -> Tensor:
    """Return weights over the small map's rows that give rows from a fractional position on.

    Row k of the result stands at p = first + k of the upsampled map and is
    `(1 - frac) * up[floor(p)] + frac * up[floor(p) + 1]`. Each of the two whole rows is clamped
    into the map, so a patch that leaves the map repeats the border's row.

    Args:
        first: [...], any real dtype and value, in rows of the upsampled map.
        count: Number of rows, one apart, at least 1.
        size_small: As in `upsample_weights`.
        size_large: As in `upsample_weights`.

    Returns:
        [..., count, size_small], float64 if `first` is, else float32; every row is >= 0 and sums
        to 1.

    Raises:
        ValueError: The count or a size is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    first = first.to(_weight_dtype(first)).unsqueeze(-1)
    whole = first.floor()
    fraction = (first - whole).unsqueeze(-1)
    offsets = torch.arange(count + 1, device=first.device, dtype=first.dtype)
    rows = upsample_weights(whole + offsets, size_small, size_large)
    return rows[..., :-1, :] * (1 - fraction) + rows[..., 1:, :] * fraction


def _weight_dtype(positions: Tensor) -> torch.dtype:
    return torch.float64 if positions.dtype == torch.float64 else torch.float32
