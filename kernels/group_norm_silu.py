"""Group normalisation followed by SiLU, over frozen weights: forward, and the gradient of the map alone.

With the C channels of a map in G groups, m and v the mean and variance of a group over its channels and all places (Wu and He 2018):

    n = (x - m) / sqrt(v + eps),    z = weight n + bias,    y = z sigmoid(z)    (y = z without the SiLU)

and with g the gradient of y, s = sigmoid(z), u = weight g s (1 + z (1 - s)) (u = weight g without the SiLU), means over the group:

    gradient of x = (u - mean(u) - n mean(u n)) / sqrt(v + eps)

| tensor       | shape        | dtype      | meaning                                                        |
|--------------|--------------|------------|----------------------------------------------------------------|
| x            | [B, C, H, W] | any float  | the map, channels_last or contiguous                           |
| weight, bias | [C]          | any float  | frozen: they get no gradient                                   |
| y            | as x         | as x       | in the memory order of x                                       |
| statistics   | [2, B, G]    | float32    | mean and rstd of every group, kept for the gradient            |

Sums are in float32, about a value near the mean, so that a mean far from nought costs no digits. A program of a GPU's kernels owns a block of places
of one group; on a CPU a thread owns a block of places of all channels. Blocks are summed in a fixed order: the same bits for any number of threads.
On a CPU the twin is not faster than PyTorch's own two operators but for gradients in bfloat16: backends choose.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _native
from .has_triton import has_triton

__all__ = ["formula", "group_norm_silu"]


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool = True
) -> Tensor:
    """y of the table above, differentiable in x.

    Raises ValueError where shapes do not fit each other, or a weight asks for a gradient.
    """
    if x.ndim != 4 or 0 in x.shape or groups < 1 or x.shape[1] % groups:
        raise ValueError(
            f"x must be [B, C, H, W] with no side 0 and C a multiple of {groups} groups, got {list(x.shape)}"
        )
    if weight.shape != (x.shape[1],) or bias.shape != weight.shape:
        raise ValueError(
            f"weight and bias must be [{x.shape[1]}], got {list(weight.shape)} and {list(bias.shape)}"
        )
    if weight.requires_grad or bias.requires_grad:
        raise ValueError("weight and bias must be frozen: this kernel gives them no gradient")
    y: Tensor = _forward(x, weight, bias, groups, eps, silu)[0]
    return y


def formula(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool = True
) -> Tensor:
    """What the kernels must equal, in plain PyTorch; low precision is computed in float32 and rounded once."""
    exact = x if x.dtype == torch.float64 else x.float()
    z = F.group_norm(exact, groups, weight.to(exact.dtype), bias.to(exact.dtype), eps)
    return (F.silu(z) if silu else z).to(x.dtype)


def _dense(x: Tensor) -> Tensor:
    """x, with its places in one row: channels_last or contiguous as it is, anything else contiguous."""
    laid_out = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return x if laid_out else x.contiguous()


def _suits_native(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype in (torch.float32, torch.bfloat16)
        and weight.dtype == x.dtype
        and x.is_contiguous(memory_format=torch.channels_last)
    )


@torch.library.custom_op("dragnoise::group_norm_silu", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    if _suits_native(x, weight) and x.device.type == "cpu":
        y, statistics = torch.empty_like(x), torch.empty(2, x.shape[0], groups)
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
    return _forward_by_formula(x, weight, bias, groups, eps, silu)


@_forward.register_kernel("cuda")
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    if not has_triton() or x.dtype == torch.float64:
        return _forward_by_formula(x, weight, bias, groups, eps, silu)
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
    """With respect to x, in its dtype and memory order."""
    if _suits_native(x, weight) and x.device.type == "cpu":
        given, found = gradient.to(x.dtype, memory_format=torch.channels_last), torch.empty_like(x)
        _native.group_norm_silu_gradient(
            _rows(given),
            _rows(x),
            _bits(weight),
            _bits(bias),
            statistics,
            _rows(found),
            silu,
            torch.get_num_threads(),
        )
        return found
    return _gradient_by_formula(gradient, x, weight, bias, statistics, silu)


@_gradient.register_kernel("cuda")
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    if not has_triton() or x.dtype == torch.float64:
        return _gradient_by_formula(gradient, x, weight, bias, statistics, silu)
    from .gpu.group_norm_silu import backward

    return backward(gradient, _dense(x), weight, bias, statistics, silu)


@_gradient.register_fake
def _(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    return torch.empty_like(_dense(x))


def _forward_by_formula(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    exact = x if x.dtype == torch.float64 else x.float()
    variance, mean = torch.var_mean(exact.reshape(x.shape[0], groups, -1), dim=2, correction=0)
    y = formula(_dense(x), groups, weight, bias, eps, silu)
    return torch.empty_like(_dense(x)).copy_(y), torch.stack([mean, (variance + eps).rsqrt()])


def _gradient_by_formula(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, statistics: Tensor, silu: bool
) -> Tensor:
    mean, rstd = statistics
    shape = (x.shape[0], mean.shape[1], -1)
    exact = mean.dtype
    w, b = (given.to(exact)[:, None, None] for given in (weight, bias))
    n = ((x.to(exact).reshape(shape) - mean[:, :, None]) * rstd[:, :, None]).view(x.shape)
    u = gradient.to(exact) * w
    if silu:
        s = torch.sigmoid(z := w * n + b)
        u = u * s * (1 + z * (1 - s))
    u, n = u.reshape(shape), n.reshape(shape)
    found = (u - u.mean(2, keepdim=True) - n * (u * n).mean(2, keepdim=True)) * rstd[:, :, None]
    return torch.empty_like(_dense(x)).copy_(found.view(x.shape))


def _rows(x: Tensor) -> Tensor:
    """A channels_last map as the rows [B, places, C] that it is in memory; bfloat16 as its bits."""
    return _bits(x.permute(0, 2, 3, 1).flatten(1, 2))


def _bits(x: Tensor) -> Tensor:
    return x.detach().view(torch.int16) if x.dtype == torch.bfloat16 else x.detach()


def _keep(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]
) -> None:
    x, weight, bias, _, _, silu = inputs
    ctx.save_for_backward(x, weight, bias, output[1])  # type: ignore[arg-type]
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(
        False
    )  # else autograd fills a gradient of noughts for it at every call: a launch
    ctx.silu = silu  # type: ignore[attr-defined]


def _backward(
    ctx: torch.autograd.function.FunctionCtx, gradient: Tensor, *_: Tensor
) -> tuple[Tensor | None, ...]:
    x, weight, bias, statistics = ctx.saved_tensors  # type: ignore[attr-defined]
    found = _gradient(gradient, x, weight, bias, statistics, ctx.silu)  # type: ignore[attr-defined]
    return found, None, None, None, None, None


_forward.register_autograd(_backward, setup_context=_keep)
