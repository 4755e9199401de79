"""An Adam update in place on a GPU. Formula and table: kernels/adam.py.

One program owns `BLOCK` elements of one entry.
"""

import math

import triton
import triton.language as tl
from torch import Tensor

__all__ = ["adam_kernel", "launch"]

BLOCK = 1024
WARPS = 4


@triton.jit
def adam_kernel(
    variable,
    gradient,
    first,
    second,
    copy,
    step,
    done,
    count,
    done_stride,
    lr,
    EPSILON: tl.constexpr,
    FIRST_WEIGHT: tl.constexpr,
    SECOND_DECAY: tl.constexpr,
    SECOND_WEIGHT: tl.constexpr,
    FIRST_LOG: tl.constexpr,
    SECOND_LOG: tl.constexpr,
    COPIED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Update a block. _DECAY: beta, _WEIGHT: 1 - beta, _LOG: log(beta), of a moment."""
    entry = tl.program_id(1)
    if tl.load(done + entry * done_stride) == 0:
        updates = tl.load(step).to(tl.float64)
        first_correction = (1.0 - tl.exp(updates * tl.full((), FIRST_LOG, tl.float64))).to(
            tl.float32
        )
        second_correction = (1.0 - tl.exp(updates * tl.full((), SECOND_LOG, tl.float64))).to(
            tl.float32
        )
        element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        inside = element < count
        element += entry * count
        g = tl.load(gradient + element, mask=inside, other=0.0).to(tl.float32)
        m = tl.load(first + element, mask=inside, other=0.0)
        v = tl.load(second + element, mask=inside, other=0.0)
        x = tl.load(variable + element, mask=inside, other=0.0)
        m += FIRST_WEIGHT * (g - m)
        v = SECOND_DECAY * v + SECOND_WEIGHT * (g * g)
        x -= lr / first_correction * m / (tl.sqrt(v / second_correction) + EPSILON)
        tl.store(first + element, m, mask=inside)
        tl.store(second + element, v, mask=inside)
        tl.store(variable + element, x, mask=inside)
        if COPIED:
            tl.store(copy + element, x, mask=inside)


def launch(
    variable: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    step: Tensor,
    done: Tensor,
    lr: float,
    betas: tuple[float, float],
    epsilon: float,
) -> None:
    """Update in place; all maps are in one dense memory order, entries outermost."""
    entries = variable.shape[0]
    count = variable.numel() // max(entries, 1)
    if count == 0:
        return
    adam_kernel[(triton.cdiv(count, BLOCK), entries)](
        variable,
        gradient,
        first,
        second,
        variable if copy is None else copy,
        step,
        done,
        count,
        done.stride(0) if done.ndim else 0,
        lr,
        EPSILON=epsilon,
        FIRST_WEIGHT=1 - betas[0],
        SECOND_DECAY=betas[1],
        SECOND_WEIGHT=1 - betas[1],
        FIRST_LOG=math.log(betas[0]),
        SECOND_LOG=math.log(betas[1]),
        COPIED=copy is not None,
        BLOCK=BLOCK,
        num_warps=WARPS,
    )
