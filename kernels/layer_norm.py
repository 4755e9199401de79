"""Layer normalisation over frozen weights, alone or after the addition that precedes it.

With s = change + x where there is a change, else s = x, m and v the mean and variance of a row of s
(Ba et al. 2016):

    n = (s - m) / sqrt(v + eps),    y = weight n + bias

and with g the gradient of y, r the gradient that s gets elsewhere, u = weight g,
means over the row:

    gradient of s = (u - mean(u) - n mean(u n)) / sqrt(v + eps) + r

which is that of x and of the change.

| tensor       | shape    | dtype     | meaning                          |
|--------------|----------|-----------|----------------------------------|
| x, change    | [..., C] | any float | rows, both of one dtype          |
| s, y         | [..., C] | as x      | contiguous                       |
| weight, bias | [C]      | any float | frozen: they get no gradient     |

s is rounded before it is normed, as if it had been added alone; sums are in float32. A program of a
GPU's kernels owns some rows, and finds their means again for the gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .has_triton import has_triton

__all__ = ["added_layer_norm", "layer_norm", "reference", "reference_gradient"]


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return y of the formula for s = x, differentiable in x.

    Args:
        x: [..., C], any float dtype.
        weight: [C], frozen.
        bias: [C], frozen.
        eps: Added to the variance.

    Raises:
        ValueError: Shapes do not fit each other, or a weight requires a gradient.
    """
    _check(x, weight, bias)
    y: Tensor = _forward(x, weight, bias, eps)
    return y


def added_layer_norm(
    change: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return s and y of the formula for s = change + x, differentiable in both.

    Args:
        change: As x.
        x: [..., C], any float dtype.
        weight: [C], frozen.
        bias: [C], frozen.
        eps: Added to the variance.

    Raises:
        ValueError: Shapes or dtypes do not fit each other, or a weight requires a gradient.
    """
    _check(x, weight, bias)
    if change.shape != x.shape or change.dtype != x.dtype:
        raise ValueError(
            f"change must be as x, {list(x.shape)} of {x.dtype}, "
            f"got {list(change.shape)} of {change.dtype}"
        )
    total, y = _added_forward(change, x, weight, bias, eps)
    return total, y


def reference(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Return what the kernel must equal, in plain PyTorch on any device."""
    exact = _exact(x)
    y = F.layer_norm(exact, weight.shape, weight.to(exact.dtype), bias.to(exact.dtype), eps)
    return y.to(x.dtype).contiguous()


def reference_gradient(
    gradient: Tensor, elsewhere: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> Tensor:
    """Return what the kernel's gradient of s must equal, from g, r and s."""
    exact = _exact(total)
    variance, mean = torch.var_mean(exact, dim=-1, correction=0, keepdim=True)
    rstd = (variance + eps).rsqrt()
    n = (exact - mean) * rstd
    u = gradient.to(exact.dtype) * weight.to(exact.dtype)
    found = (u - u.mean(-1, keepdim=True) - n * (u * n).mean(-1, keepdim=True)) * rstd
    if elsewhere is not None:
        found = found + elsewhere
    return found.to(total.dtype).contiguous()


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _check(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    if x.ndim == 0 or 0 in x.shape:
        raise ValueError(f"x must be [..., C] with no side 0, got {list(x.shape)}")
    if weight.shape != x.shape[-1:] or bias.shape != weight.shape:
        raise ValueError(
            f"weight and bias must be [{x.shape[-1]}], "
            f"got {list(weight.shape)} and {list(bias.shape)}"
        )
    if weight.requires_grad or bias.requires_grad:
        raise ValueError("weight and bias must be frozen: this kernel gives them no gradient")


WIDEST = 4096
"""Channels of the widest row that one program of a GPU holds; wider ones run by the formula."""


def _suits_triton(x: Tensor) -> bool:
    return has_triton() and x.dtype != torch.float64 and x.shape[-1] <= WIDEST


@torch.library.custom_op("dragnoise::layer_norm", mutates_args=())
def _forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return reference(x, weight, bias, eps)


@_forward.register_kernel("cuda")
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    if not _suits_triton(x):
        return reference(x, weight, bias, eps)
    from .gpu.layer_norm import forward

    return forward(x, weight, bias, eps)


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("dragnoise::added_layer_norm", mutates_args=())
def _added_forward(
    change: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    total = (change + x).contiguous()
    return total, reference(total, weight, bias, eps)


@_added_forward.register_kernel("cuda")
def _(change: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    if not _suits_triton(x):
        total = (change + x).contiguous()
        return total, reference(total, weight, bias, eps)
    from .gpu.layer_norm import added_forward

    return added_forward(change, x, weight, bias, eps)


@_added_forward.register_fake
def _(change: Tensor, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@torch.library.custom_op("dragnoise::layer_norm_gradient", mutates_args=())
def _gradient(
    gradient: Tensor, elsewhere: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> Tensor:
    """Return the gradient of s, contiguous."""
    return reference_gradient(gradient, elsewhere, total, weight, eps)


@_gradient.register_kernel("cuda")
def _(
    gradient: Tensor, elsewhere: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> Tensor:
    if not _suits_triton(total):
        return reference_gradient(gradient, elsewhere, total, weight, eps)
    from .gpu.layer_norm import backward

    return backward(gradient, elsewhere, total, weight, eps)


@_gradient.register_fake
def _(
    gradient: Tensor, elsewhere: Tensor | None, total: Tensor, weight: Tensor, eps: float
) -> Tensor:
    return total.new_empty(total.shape)


def _keep(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: Tensor
) -> None:
    x, weight, _, eps = inputs
    ctx.save_for_backward(x, weight)  # type: ignore[arg-type]
    ctx.eps = eps  # type: ignore[attr-defined]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    of_x = _gradient(gradient, None, x, weight, ctx.eps)  # type: ignore[attr-defined]
    return of_x, None, None, None


_forward.register_autograd(_backward, setup_context=_keep)


def _keep_added(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]
) -> None:
    *_, weight, _, eps = inputs
    ctx.save_for_backward(output[0], weight)  # type: ignore[arg-type]
    ctx.eps = eps  # type: ignore[attr-defined]


def _added_backward(
    ctx: torch.autograd.function.FunctionCtx, elsewhere: Tensor, gradient: Tensor
) -> tuple[Tensor | None, ...]:
    total, weight = ctx.saved_tensors  # type: ignore[attr-defined]
    found = _gradient(gradient, elsewhere, total, weight, ctx.eps)  # type: ignore[attr-defined]
    return found, found, None, None, None


_added_forward.register_autograd(_added_backward, setup_context=_keep_added)
