"""One Adam update in place, of variables whose drags may be done, with their low-precision copy.

For the variable x, its gradient g, the moments m and v, and t = 1, 2, ... (Kingma and Ba 2015,
algorithm 1):

    m <- beta_1 m + (1 - beta_1) g
    v <- beta_2 v + (1 - beta_2) g^2
    x <- x - lr / (1 - beta_1^t) * m / (sqrt(v / (1 - beta_2^t)) + epsilon)
    copy <- x, rounded

with beta_1 = 0.9, beta_2 = 0.999, epsilon = 1e-8. Where `done` holds, all four stay as they are,
bit for bit. The copy is what a network of low precision reads.

    name      shape      dtype
    variable  [B, ...]   float32     x, updated
    gradient  [B, ...]   any float   g
    first     [B, ...]   float32     m, updated
    second    [B, ...]   float32     v, updated
    copy      [B, ...]   any float   updated; or None
    step      []         int64       t, only read: whoever counts the updates adds 1 before the call
    done      [] or [B]  bool        of the whole variable, or of every entry
    lr        number

Nothing is read on the host if the tensors are on a GPU, so a CUDA graph can replay the update:
`step`, `done` and `gradient` live at fixed addresses. There one program owns `BLOCK` elements of
one entry. The bias corrections are computed in float64 everywhere, as in float32 1 - 0.999^t would
have lost three digits at t = 1; the rest in float32. Implementations differ by float32's roundings:
about 1e-6 of the larger term of a moment, and of the update.

variable, first, second and copy lie in memory in the same order, contiguous or channels_last; the
gradient is brought into it.
"""

import math

import torch
from torch import Tensor

from .has_native import has_native
from .has_triton import has_triton

__all__ = ["BETAS", "EPSILON", "adam_step", "reference"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


def adam_step(
    variable: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    step: Tensor,
    done: Tensor,
    lr: float,
) -> None:
    """Update `variable`, `first`, `second` and `copy` in place, without waiting for the device.

    Args:
        variable: x, [B, ...] float32.
        gradient: g, of the same shape, any float dtype and strides.
        first: m, as `variable`.
        second: v, as `variable`.
        copy: As `variable`, of any float dtype; or None.
        step: t, [] int64.
        done: [] or [B] bool, what stays as it is.
        lr: Learning rate.

    None of them may require a gradient or share memory with another.

    Raises:
        ValueError: Shapes, dtypes, memory orders or devices do not fit each other.
    """
    _check(variable, gradient, first, second, copy, step, done)
    _adam_step(variable, gradient.detach(), first, second, copy, step, done, lr)


def reference(
    variable: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    step: Tensor,
    done: Tensor,
    lr: float,
) -> None:
    """Update as the kernels must: `adam_step` in plain PyTorch, on any device."""
    gradient = gradient.float()
    corrections = [-torch.expm1(step.double() * math.log(beta)) for beta in BETAS]
    moved_first = first.lerp(gradient, 1 - BETAS[0])
    moved_second = torch.addcmul(second * BETAS[1], gradient, gradient, value=1 - BETAS[1])
    scale = (moved_second / corrections[1].float()).sqrt() + EPSILON
    moved = variable - (lr / corrections[0]).float() * moved_first / scale
    stays = _by_entry(done, variable)
    variable.copy_(torch.where(stays, variable, moved))
    first.copy_(torch.where(stays, first, moved_first))
    second.copy_(torch.where(stays, second, moved_second))
    if copy is not None:
        copy.copy_(torch.where(stays, copy, variable.to(copy.dtype)))


def _by_entry(done: Tensor, variable: Tensor) -> Tensor:
    """Return [] or [B] in a shape that broadcasts against the variable."""
    return done.reshape(-1, *[1] * (variable.ndim - 1))


def _order(variable: Tensor) -> torch.memory_format:
    if not variable.is_contiguous() and variable.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def _entries(tensor: Tensor, order: torch.memory_format) -> Tensor:
    """Return [B, ...] as [B, n]: the same memory in its own order."""
    if order == torch.channels_last:
        tensor = tensor.movedim(1, -1)
    return tensor.view(tensor.shape[0], -1)


def _check(
    variable: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    step: Tensor,
    done: Tensor,
) -> None:
    if variable.ndim == 0 or 0 in variable.shape:
        raise ValueError(f"variable must be [B, ...] with no side 0, got {list(variable.shape)}")
    order = _order(variable)
    updated = {"variable": variable, "first": first, "second": second}
    if copy is not None:
        updated["copy"] = copy
    for name, tensor in updated.items():
        if tensor.shape != variable.shape or not tensor.is_contiguous(memory_format=order):
            raise ValueError(
                f"{name} must be {list(variable.shape)} in variable's memory order, contiguous or "
                f"channels_last, got {list(tensor.shape)} with strides {list(tensor.stride())}"
            )
        if tensor.dtype != torch.float32 and name != "copy":
            raise ValueError(f"{name} must be float32, got {tensor.dtype}")
    if gradient.shape != variable.shape:
        raise ValueError(f"gradient must be {list(variable.shape)}, got {list(gradient.shape)}")
    if step.shape != () or step.dtype != torch.int64:
        raise ValueError(f"step must be [] int64, got {list(step.shape)} {step.dtype}")
    if done.shape not in ((), variable.shape[:1]) or done.dtype != torch.bool:
        raise ValueError(
            f"done must be [] or {list(variable.shape[:1])} bool, "
            f"got {list(done.shape)} {done.dtype}"
        )
    devices = [str(tensor.device) for tensor in (*updated.values(), gradient, step, done)]
    if len(set(devices)) > 1:
        raise ValueError(f"devices differ: {', '.join(devices)}")


_adam_step = torch.library.custom_op(
    "dragnoise::adam_step", reference, mutates_args=("variable", "first", "second", "copy")
)


@_adam_step.register_fake
def _(*given: object) -> None:
    return None


@_adam_step.register_kernel("cpu")
def _(
    variable: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    step: Tensor,
    done: Tensor,
    lr: float,
) -> None:
    if not has_native():
        reference(variable, gradient, first, second, copy, step, done, lr)
        return
    from . import _native

    order = _order(variable)
    exact = gradient.float().contiguous(memory_format=order)
    x, g, m, v = (_entries(tensor, order) for tensor in (variable, exact, first, second))
    stays = done.expand(variable.shape[0]).contiguous()
    _native.adam_step(x, g, m, v, stays, int(step), lr, *BETAS, EPSILON)
    if copy is not None:
        for entry, stay in enumerate(stays.tolist()):
            if not stay:
                copy[entry].copy_(variable[entry])


@_adam_step.register_kernel("cuda")
def _(
    variable: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    copy: Tensor | None,
    step: Tensor,
    done: Tensor,
    lr: float,
) -> None:
    if not has_triton():
        reference(variable, gradient, first, second, copy, step, done, lr)
        return
    from .gpu.adam import launch

    laid = gradient.contiguous(memory_format=_order(variable))
    launch(variable, laid, first, second, copy, step, done, lr, BETAS, EPSILON)
