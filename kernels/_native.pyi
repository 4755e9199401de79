"""CPU twins of the kernels, in C++ (kernels/native/). Arrays may come from numpy or torch (CPU, without gradient)."""

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
    """The nearest feature in a window around every handle, and whether it is strictly nearer than `near` to the target; `point_tracking`.

    features: [C, h, w] float32, float16 or bfloat16, any strides. references: [N, C] float32, contiguous. handles, targets: [N, 2] int64
    (row, column), contiguous. Returns [N, 2] int64, inside `resolution`, and [N] bool. Releases the GIL; one thread.
    Raises ValueError where sizes do not fit each other, TypeError for another dtype, rank, device or memory order.
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
    """Group normalisation and SiLU into `y`; formula in `group_norm_silu`.

    x, y: [B, places, C]; weight, bias: [C]: float32, or int16 for the bits of bfloat16. statistics: [2, B, groups] float32, written: mean and rstd.
    All contiguous. At most `threads` threads, the same bits for any number of them. Releases the GIL.
    Raises ValueError where sizes do not fit each other, TypeError for another dtype, rank, device or memory order.
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
    """The gradient of x into `found`, from that of y and the statistics of the forward pass; otherwise as `group_norm_silu`."""

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
    """The motion loss; its gradient is added to `gradient`; formula in `patch_motion`.

    features, gradient: [C, h, w] float32, any strides. handles, targets: [N, 2] int64 (row, column), contiguous. reached: points nearer than this to
    their target do not count. tie: units of rounding that count as nought. Releases the GIL; one thread.
    Raises ValueError where sizes do not fit each other, TypeError for another dtype, rank, device or memory order.
    """

def latent_term(
    noise: Tensor | NDArray[np.float32],
    reference: Tensor | NDArray[np.float32],
    keep: Tensor | NDArray[np.float32],
    slope: float,
    lam: float,
    gradient: Tensor | NDArray[np.float32],
) -> float:
    """The mask term; its gradient is written into `gradient`. Formula in `latent_term`.

    All [B, C, h, w] float32, any strides; keep also with 1 for B or C. Releases the GIL; one thread. Raises as above.
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
    """One Adam update of variable, first and second in place, but of entries that are done. Formula in `adam`.

    All [B, n] float32, contiguous, none overlapping another; done: [B] bool. step: from 1. Releases the GIL; one thread. Raises as above.
    """
