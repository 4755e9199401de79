"""CPU twins of the kernels, in C++ (kernels/native/).

Arrays may come from numpy or torch (CPU, without gradient). Every function releases the GIL, and
raises ValueError for sizes that do not fit each other, TypeError for another dtype, rank, device or
memory order.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

def track_points(
    features: Tensor | NDArray[np.float32] | NDArray[np.float16],
    references: Tensor | NDArray[np.float32],
    handles: Tensor | NDArray[np.int64],
    targets: Tensor | NDArray[np.int64],
    resolution: tuple[int, int],
    radius: int,
    near: float,
) -> tuple[
    np.ndarray[tuple[int, int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.bool_]]
]:
    """Return the nearest feature in a window around every handle, and whether that is the target.

    Formula in `point_tracking`. One thread.

    Args:
        features: [C, h, w] float32, float16 or bfloat16, any strides.
        references: [N, C] float32, contiguous.
        handles: [N, 2] int64, (row, column), contiguous.
        targets: Likewise.
        resolution: (H, W) of the upsampled map.
        radius: In positions of it.
        near: A place strictly nearer than this to the target has reached it.

    Returns:
        [N, 2] int64, inside `resolution`, and [N] bool.
    """

def group_norm_silu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    statistics: Tensor,
    eps: float,
    silu: bool,
    threads: int,
) -> None:
    """Write group normalisation and SiLU into `y`; formula in `group_norm_silu`.

    All are contiguous; maps and weights are float32, or int16 for the bits of bfloat16.

    Args:
        x: [B, places, C].
        weight: [C].
        bias: [C].
        y: As x, written.
        statistics: [2, B, groups] float32, written: mean and rstd.
        eps: Added to the variance.
        silu: Whether the SiLU follows.
        threads: The most threads; the bits are the same for any number of them.
    """

def group_norm_silu_gradient(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    found: Tensor,
    silu: bool,
    threads: int,
) -> None:
    """Write the gradient of x into `found`, from that of y and the forward pass's statistics.

    Otherwise as `group_norm_silu`.
    """

def patch_motion(
    features: Tensor | NDArray[np.float32],
    handles: Tensor | NDArray[np.int64],
    targets: Tensor | NDArray[np.int64],
    resolution: tuple[int, int],
    radius: int,
    reached: float,
    tie: float,
    gradient: Tensor | NDArray[np.float32],
) -> float:
    """Return the motion loss and add its gradient to `gradient`; formula in `patch_motion`.

    One thread.

    Args:
        features: [C, h, w] float32, any strides.
        handles: [N, 2] int64, (row, column), contiguous.
        targets: Likewise.
        resolution: (H, W) of the upsampled map.
        radius: In positions of it.
        reached: Points nearer than this to their target do not count.
        tie: Units of rounding that count as zero.
        gradient: [C, h, w] float32, any strides, added to.
    """

def latent_term(
    noise: Tensor | NDArray[np.float32],
    reference: Tensor | NDArray[np.float32],
    keep: Tensor | NDArray[np.float32],
    slope: float,
    lam: float,
    gradient: Tensor | NDArray[np.float32],
) -> float:
    """Return the mask term and write its gradient into `gradient`; formula in `latent_term`.

    All are [B, C, h, w] float32, any strides; keep also with 1 for B or C. One thread.
    """

def adam_step(
    variable: Tensor | NDArray[np.float32],
    gradient: Tensor | NDArray[np.float32],
    first: Tensor | NDArray[np.float32],
    second: Tensor | NDArray[np.float32],
    done: Tensor | NDArray[np.bool_],
    step: int,
    lr: float,
    beta_first: float,
    beta_second: float,
    epsilon: float,
) -> None:
    """Update variable, first and second in place, but not entries that are done.

    Formula in `adam`. All are [B, n] float32, contiguous, none overlapping another; done is
    [B] bool, step counts from 1. One thread.
    """

def splat(
    values: Tensor | NDArray[np.float32],
    shift: Tensor | NDArray[np.float32],
    weight: Tensor | NDArray[np.float32],
    editable: Tensor | NDArray[np.bool_],
    behind: Tensor | NDArray[np.float32],
    splatted: Tensor | NDArray[np.float32],
    holes: Tensor | NDArray[np.bool_],
) -> None:
    """Write a map whose cells go their own ways, not blended, and its holes; formula in `splat`.

    One thread.

    Args:
        values: [B, C, h, w] float32, any strides.
        shift: [2, h, w] float32, contiguous.
        weight: [h, w] float32, contiguous.
        editable: [h, w] bool, contiguous.
        behind: As values; may be these.
        splatted: As values, written; overlaps none of them.
        holes: [h, w] bool, contiguous, written.
    """

def relax(
    fixed: Tensor | NDArray[np.bool_],
    speeds: Tensor | NDArray[np.float32],
    found: Tensor | NDArray[np.float32],
    before: Tensor | NDArray[np.float32],
) -> None:
    """Make sweeps towards a harmonic map; formula in `relax`. One thread.

    Args:
        fixed: [h, w] bool, contiguous.
        speeds: [sweeps] float32, contiguous.
        found: [C, h, w] float32, contiguous: the first iterate, and then the last.
        before: As found, and overlapping it nowhere: the first iterate too; written.
    """
