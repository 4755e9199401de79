"""Group normalisation followed by SiLU, over frozen weights: forward, and the map's gradient.

With the C channels of a map in G groups, m and v the mean and variance of a group over its channels
and all places (Wu and He 2018):

    n = (x - m) / sqrt(v + eps),    z = weight n + bias,    y = z sigmoid(z)

(y = z without the SiLU), and with g the gradient of y, s = sigmoid(z),
u = weight g s (1 + z (1 - s)) (u = weight g without the SiLU), means over the group:

    gradient of x = (u - mean(u) - n mean(u n)) / sqrt(v + eps)

| tensor       | shape        | dtype      | meaning                                              |
|--------------|--------------|------------|------------------------------------------------------|
| x            | [B, C, H, W] | any float  | the map, channels_last or contiguous                 |
| weight, bias | [C]          | any float  | frozen: they get no gradient                         |
| y            | as x         | as x       | in the memory order of x                             |
| statistics   | [2, B, G]    | float32    | mean and rstd of every group, kept for the gradient; |
|              |              |            | float64 if x is                                      |

Sums are in float32, about a value near the mean, so that a mean far from zero costs no digits. A
program of a GPU's kernels owns one group, or a block of its places; on a CPU a thread owns a block
of places of all channels. Blocks are summed in a fixed order: the same bits for any number of
threads. On a CPU the twin is faster than PyTorch's own two operators only for gradients in
bfloat16: backends choose.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .has_native import has_native
from .has_triton import has_triton

__all__ = ["group_norm_silu", "reference", "reference_gradient"]


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool = True
) -> Tensor:
    """Return y of the table above, differentiable in x.

    Args:
        x: [B, C, H, W], any float dtype.
        groups: G, a divisor of C.
        weight: [C], frozen.
        bias: [C], frozen.
        eps: Added to the variance.
        silu: Whether the SiLU follows.

    Raises:
        ValueError: Shapes do not fit each other, or a weight requires a gradient.
    """
    _check(x, groups, weight, bias)
    y: Tensor = _forward(x, weight, bias, groups, eps, silu)[0]
    return y


def reference(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool = True
) -> tuple[Tensor, Tensor]:
    """Return what the kernels must equal, y and statistics, in plain PyTorch on any device.

    Low precision is computed with in float32 and rounded once.
    """
    x = _dense(x)
    exact = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(exact.reshape(x.shape[0], groups, -1), dim=2, correction=0)
    z = F.group_norm(exact, groups, weight.to(exact.dtype), bias.to(exact.dtype), eps)
    y = F.silu(z) if silu else z
    return torch.empty_like(x).copy_(y), torch.stack([mean, (variance + eps).rsqrt()])


def reference_gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool = True
) -> Tensor:
    """Return what the kernels' gradient of x must equal, from that of y and the statistics."""
    mean, rstd = statistics.unsqueeze(-1)
    shape = (*mean.shape[:2], -1)
    w = weight.to(mean.dtype)[:, None, None]
    b = bias.to(mean.dtype)[:, None, None]
    n = ((x.to(mean.dtype).reshape(shape) - mean) * rstd).view(x.shape)
    u = gradient.to(mean.dtype) * w
    if silu:
        z = w * n + b
        s = torch.sigmoid(z)
        u = u * s * (1 + z * (1 - s))
    u = u.reshape(shape)
    n = n.reshape(shape)
    of_x = (u - u.mean(2, keepdim=True) - n * (u * n).mean(2, keepdim=True)) * rstd
    return torch.empty_like(_dense(x)).copy_(of_x.view(x.shape))


def _check(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> None:
    if x.ndim != 4 or 0 in x.shape or groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"x must be [B, C, H, W] with no side 0 and C a multiple of {groups} groups, "
            f"got {list(x.shape)}"
        )
    if weight.shape != (x.shape[1],) or bias.shape != weight.shape:
        raise ValueError(
            f"weight and bias must be [{x.shape[1]}], "
            f"got {list(weight.shape)} and {list(bias.shape)}"
        )
    if weight.requires_grad or bias.requires_grad:
        raise ValueError("weight and bias must be frozen: this kernel gives them no gradient")


def _dense(x: Tensor) -> Tensor:
    """Return x as it is if it is channels_last or contiguous, else a contiguous copy."""
    laid_out = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return x if laid_out else x.contiguous()


def _suits_native(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and weight.dtype == x.dtype
        and x.is_contiguous(memory_format=torch.channels_last)
        and has_native()
    )


def _rows(x: Tensor) -> Tensor:
    """Return a channels_last map as the rows [B, places, C] that it is in memory."""
    return _bits(x.permute(0, 2, 3, 1).flatten(1, 2))


def _bits(x: Tensor) -> Tensor:
    """Return bfloat16 as its bits, which is how the native module takes it."""
    return x.detach().view(torch.int16) if x.dtype == torch.bfloat16 else x.detach()


@torch.library.custom_op("dragnoise::group_norm_silu", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    if _suits_native(x, weight):
        from . import _native

        y = torch.empty_like(x)
        statistics = torch.empty(2, x.shape[0], groups, dtype=torch.float32)
        _native.group_norm_silu(
            _rows(x),
            _bits(weight),
            _bits(bias),
            _rows(y),
            statistics,
            eps,
            silu,
            torch.get_num_threads(),
        )
        return y, statistics
    return reference(x, weight, bias, groups, eps, silu)


@_forward.register_kernel("cuda")
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    if not has_triton() or x.dtype == torch.float64:
        return reference(x, weight, bias, groups, eps, silu)
    from .gpu.group_norm_silu import forward

    return forward(_dense(x), weight, bias, groups, eps, silu)


@_forward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.empty_like(_dense(x)), x.new_empty(2, x.shape[0], groups, dtype=exact)


@torch.library.custom_op("dragnoise::group_norm_silu_gradient", mutates_args=())
def _gradient(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    """Return the gradient of x, in its dtype and memory order."""
    if _suits_native(x, weight):
        from . import _native

        of_y = gradient.to(x.dtype, memory_format=torch.channels_last)
        of_x = torch.empty_like(x)
        _native.group_norm_silu_gradient(
            _rows(of_y),
            _rows(x),
            _bits(weight),
            _bits(bias),
            statistics,
            _rows(of_x),
            silu,
            torch.get_num_threads(),
        )
        return of_x
    return reference_gradient(gradient, x, weight, bias, statistics, silu)


@_gradient.register_kernel("cuda")
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    if not has_triton() or x.dtype == torch.float64:
        return reference_gradient(gradient, x, weight, bias, statistics, silu)
    from .gpu.group_norm_silu import backward

    return backward(gradient, _dense(x), weight, bias, statistics, silu)


@_gradient.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    return torch.empty_like(_dense(x))


def _keep(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]
) -> None:
    x, weight, bias, _, _, silu = inputs
    ctx.save_for_backward(x, weight, bias, output[1])  # type: ignore[arg-type]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # or autograd fills zeros for it at every call: a launch
    ctx.silu = silu  # type: ignore[attr-defined]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor, *_: Tensor
) -> tuple[Tensor | None, ...]:
    x, weight, bias, statistics = ctx.saved_tensors  # type: ignore[attr-defined]
    of_x = _gradient(gradient, x, weight, bias, statistics, ctx.silu)  # type: ignore[attr-defined]
    return of_x, None, None, None, None, None


_forward.register_autograd(_backward, setup_context=_keep)
