"""Group normalisation of a sum, followed by SiLU, over frozen weights: forward, and gradients.

With s what the map and what is added to it come to, the C channels of s in G groups, m and v the
mean and variance of a group over its channels and all places (Wu and He 2018):

    s = x + change + plus, followed by the channels of beside
    n = (s - m) / sqrt(v + eps),    z = weight n + bias,    y = z sigmoid(z)

(y = z without the SiLU), and with g the gradient of y, r the gradient that s gets elsewhere,
q = sigmoid(z), u = weight g q (1 + z (1 - q)) (u = weight g without the SiLU), means over the
group:

    gradient of s = (u - mean(u) - n mean(u n)) / sqrt(v + eps) + r

which is that of x and of the change in x's channels, and that of beside in the others.

| tensor       | shape            | dtype     | meaning                                            |
|--------------|------------------|-----------|----------------------------------------------------|
| x            | [B, D, H, W]     | any float | the map, channels_last or contiguous               |
| change       | [B, D, H, W]     | as x      | what is added to it, if anything                   |
| plus         | [N, D, h, w]     | any float | frozen, added too: N is 1 or B; h, w 1 or H, W     |
| beside       | [B, C - D, H, W] | as x      | the channels that follow, if any                   |
| weight, bias | [C]              | any float | frozen: they get no gradient                       |
| s, y         | [B, C, H, W]     | as x      | in the memory order of x                           |
| statistics   | [2, B, G]        | float32   | mean and rstd of a group, kept for the gradient;   |
|              |                  |           | float64 if x is                                    |

s is rounded once, before it is normed. Sums over a group are in float32, about a value near the
mean, so that a mean far from zero costs no digits. A program of a GPU's kernels owns one group, or
a block of its places; on a CPU a thread owns a block of places of all channels. Blocks are summed
in a fixed order: the same bits for any number of threads. On a CPU the twin is faster than
PyTorch's own two operators only for gradients in bfloat16: backends choose.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .has_native import has_native
from .has_triton import has_triton

__all__ = ["added_group_norm_silu", "group_norm_silu", "reference", "reference_gradient", "summed"]


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool = True
) -> Tensor:
    """Return y of the table above for s = x, differentiable in x.

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


def added_group_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    silu: bool = True,
    *,
    change: Tensor | None = None,
    plus: Tensor | None = None,
    beside: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return s and y of the table above, differentiable in x, change and beside.

    Args:
        x: [B, D, H, W], any float dtype.
        groups: G, a divisor of C.
        weight: [C], frozen.
        bias: [C], frozen.
        eps: Added to the variance.
        silu: Whether the SiLU follows.
        change: As x.
        plus: [N, D, h, w] that broadcasts to x, frozen.
        beside: [B, C - D, H, W], of x's dtype.

    Raises:
        ValueError: Shapes or dtypes do not fit each other, or what is frozen requires a gradient.
    """
    _check_added(x, change, plus, beside)
    if change is None and plus is None and beside is None:
        return x, group_norm_silu(x, groups, weight, bias, eps, silu)
    others = 0 if beside is None else beside.shape[1]
    _check(x, groups, weight, bias, others)
    total, y, _ = _added_forward(x, change, plus, beside, weight, bias, groups, eps, silu)
    return total, y


def summed(x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None) -> Tensor:
    """Return s of the table above, in plain PyTorch on any device."""
    x = _dense(x)
    total = x if x.dtype == torch.float64 else x.float()
    for more in (change, plus):
        total = total if more is None else total + more
    total = torch.empty_like(x).copy_(total)
    return total if beside is None else _like(torch.cat([total, beside], dim=1), x)


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
    gradient: Tensor,
    elsewhere: Tensor | None,
    total: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    silu: bool = True,
) -> Tensor:
    """Return what the kernels' gradient of s must equal, from g, r, s and the statistics."""
    mean, rstd = statistics.unsqueeze(-1)
    shape = (*mean.shape[:2], -1)
    w = weight.to(mean.dtype)[:, None, None]
    b = bias.to(mean.dtype)[:, None, None]
    n = ((total.to(mean.dtype).reshape(shape) - mean) * rstd).view(total.shape)
    u = gradient.to(mean.dtype) * w
    if silu:
        z = w * n + b
        q = torch.sigmoid(z)
        u = u * q * (1 + z * (1 - q))
    u = u.reshape(shape)
    n = n.reshape(shape)
    found = (u - u.mean(2, keepdim=True) - n * (u * n).mean(2, keepdim=True)) * rstd
    found = found.view(total.shape)
    if elsewhere is not None:
        found = found + elsewhere
    return torch.empty_like(_dense(total)).copy_(found)


def _check(x: Tensor, groups: int, weight: Tensor, bias: Tensor, others: int = 0) -> None:
    if x.ndim != 4 or 0 in x.shape or groups < 1 or (x.shape[1] + others) % groups:
        raise ValueError(
            f"x must be [B, C, H, W] with no side 0 and C a multiple of {groups} groups, "
            f"got {list(x.shape)}" + (f" and {others} channels beside it" if others else "")
        )
    channels = x.shape[1] + others
    if weight.shape != (channels,) or bias.shape != weight.shape:
        raise ValueError(
            f"weight and bias must be [{channels}], got {list(weight.shape)} and {list(bias.shape)}"
        )
    if weight.requires_grad or bias.requires_grad:
        raise ValueError("weight and bias must be frozen: this kernel gives them no gradient")


def _check_added(
    x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
) -> None:
    shape = list(x.shape)
    if change is not None and (change.shape != x.shape or change.dtype != x.dtype):
        raise ValueError(
            f"change must be as x, {shape} of {x.dtype}, got {list(change.shape)} of {change.dtype}"
        )
    if beside is not None:
        fits = beside.ndim == 4 and [*beside.shape[:1], *beside.shape[2:]] == shape[:1] + shape[2:]
        if not fits or beside.dtype != x.dtype or not beside.shape[1]:
            raise ValueError(
                f"beside must differ from x, {shape} of {x.dtype}, in its channels alone, "
                f"got {list(beside.shape)} of {beside.dtype}"
            )
    if plus is not None:
        fits = plus.ndim == 4 and plus.shape[0] in (1, shape[0]) and plus.shape[1] == shape[1]
        if not fits or list(plus.shape[2:]) not in (shape[2:], [1, 1]):
            raise ValueError(
                f"plus must be [1 or {shape[0]}, {shape[1]}, ...] with one place or "
                f"{shape[2:]} of them, got {list(plus.shape)}"
            )
        if plus.requires_grad:
            raise ValueError("plus must be frozen: this kernel gives it no gradient")


def _like(x: Tensor, other: Tensor) -> Tensor:
    """Return x in the memory order of a map that is channels_last or contiguous."""
    last = other.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    return x.contiguous(memory_format=order)


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

    return forward(_dense(x), weight, bias, groups, eps, silu)[1:]


@_forward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(_dense(x)), x.new_empty(2, x.shape[0], groups, dtype=_exact(x))


def _exact(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


@torch.library.custom_op("dragnoise::added_group_norm_silu", mutates_args=())
def _added_forward(
    x: Tensor,
    change: Tensor | None,
    plus: Tensor | None,
    beside: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    total = summed(x, change, plus, beside)
    return total, *_forward(total, weight, bias, groups, eps, silu)


@_added_forward.register_kernel("cuda")
def _(
    x: Tensor,
    change: Tensor | None,
    plus: Tensor | None,
    beside: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not has_triton() or x.dtype == torch.float64:
        total = summed(x, change, plus, beside)
        return total, *reference(total, weight, bias, groups, eps, silu)
    from .gpu.group_norm_silu import forward

    x = _dense(x)
    if plus is not None:
        plus = plus.contiguous() if plus.shape[2:] == (1, 1) else _like(plus, x)
    change, beside = (None if each is None else _like(each, x) for each in (change, beside))
    return forward(x, weight, bias, groups, eps, silu, change, plus, beside)


@_added_forward.register_fake
def _(
    x: Tensor,
    change: Tensor | None,
    plus: Tensor | None,
    beside: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    total = torch.empty_like(_dense(x))
    if beside is not None:
        channels = x.shape[1] + beside.shape[1]
        total = _like(total.new_empty(x.shape[0], channels, *x.shape[2:]), total)
    statistics = x.new_empty(2, x.shape[0], groups, dtype=_exact(x))
    return total, torch.empty_like(total), statistics


@torch.library.custom_op("dragnoise::group_norm_silu_gradient", mutates_args=())
def _gradient(
    gradient: Tensor,
    elsewhere: Tensor | None,
    total: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    silu: bool,
    kept: int,
) -> Tensor:
    """Return the gradient of the first channels of s, as many as kept, in its memory order."""
    if _suits_native(total, weight):
        from . import _native

        of_y = gradient.to(total.dtype, memory_format=torch.channels_last)
        found = torch.empty_like(total)
        _native.group_norm_silu_gradient(
            _rows(of_y),
            _rows(total),
            _bits(weight),
            _bits(bias),
            statistics,
            _rows(found),
            silu,
            torch.get_num_threads(),
        )
        found = found if elsewhere is None else found + elsewhere
    else:
        found = reference_gradient(gradient, elsewhere, total, weight, bias, statistics, silu)
    return _first(found, kept)


def _first(found: Tensor, kept: int) -> Tensor:
    """Return the first channels of a map, in its memory order."""
    return found if kept == found.shape[1] else _like(found[:, :kept], found)


@_gradient.register_kernel("cuda")
def _(
    gradient: Tensor,
    elsewhere: Tensor | None,
    total: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    silu: bool,
    kept: int,
) -> Tensor:
    if not has_triton() or total.dtype == torch.float64:
        found = reference_gradient(gradient, elsewhere, total, weight, bias, statistics, silu)
        return _first(found, kept)
    from .gpu.group_norm_silu import backward

    found = backward(gradient, elsewhere, _dense(total), weight, bias, statistics, silu)
    return _first(found, kept)


@_gradient.register_fake
def _(
    gradient: Tensor,
    elsewhere: Tensor | None,
    total: Tensor,
    weight: Tensor,
    bias: Tensor,
    statistics: Tensor,
    silu: bool,
    kept: int,
) -> Tensor:
    return _first(torch.empty_like(_dense(total)), kept)


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
    silu = ctx.silu  # type: ignore[attr-defined]
    of_x = _gradient(gradient, None, x, weight, bias, statistics, silu, x.shape[1])
    return of_x, None, None, None, None, None


_forward.register_autograd(_backward, setup_context=_keep)


def _keep_added(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[object, ...], output: tuple[Tensor, ...]
) -> None:
    x, _, _, _, weight, bias, _, _, silu = inputs
    total, _, statistics = output
    ctx.save_for_backward(total, weight, bias, statistics)  # type: ignore[arg-type]
    ctx.mark_non_differentiable(statistics)
    ctx.set_materialize_grads(False)
    ctx.silu = silu  # type: ignore[attr-defined]
    ctx.own = x.shape[1]  # type: ignore[attr-defined]


def _added_backward(
    ctx: torch.autograd.function.FunctionCtx,
    elsewhere: Tensor | None,
    gradient: Tensor | None,
    *_: Tensor,
) -> tuple[Tensor | None, ...]:
    total, weight, bias, statistics = ctx.saved_tensors  # type: ignore[attr-defined]
    own = ctx.own  # type: ignore[attr-defined]
    both = ctx.needs_input_grad[3]  # type: ignore[attr-defined]
    kept = total.shape[1] if both else own
    found = None if elsewhere is None else elsewhere[:, :kept]
    if gradient is not None:
        silu = ctx.silu  # type: ignore[attr-defined]
        found = _gradient(gradient, elsewhere, total, weight, bias, statistics, silu, kept)
    if found is None:
        return (None,) * 9
    of_x = found[:, :own]
    of_change = of_x if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
    of_beside = found[:, own:] if both else None
    return of_x, of_change, None, of_beside, None, None, None, None, None


_added_forward.register_autograd(_added_backward, setup_context=_keep_added)
