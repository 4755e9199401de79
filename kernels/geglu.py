"""The gate of a feed-forward layer (GEGLU, Shazeer 2020), from one tensor that holds both halves.

With h the first half of x's channels, g the second, and F the normal distribution:

    y = h g F(g)

and with u the gradient of y, f the normal density (Hendrycks and Gimpel 2016):

    gradient of h = u g F(g),    gradient of g = u h (F(g) + g f(g))

| tensor | shape      | dtype     | meaning                      |
|--------|------------|-----------|------------------------------|
| x      | [..., 2 C] | any float | h and g side by side         |
| y      | [..., C]   | as x      | contiguous                   |

Sums are in float32 and rounded once. A program of a GPU's kernels owns a tile of y.
"""

import math

import torch
from torch import Tensor

from .has_triton import has_triton

__all__ = ["geglu", "reference", "reference_gradient"]


def geglu(x: Tensor) -> Tensor:
    """Return y of the table above, differentiable.

    Args:
        x: [..., 2 C], any float dtype.

    Raises:
        ValueError: x has no even number of channels, or none.
    """
    if x.ndim == 0 or 0 in x.shape or x.shape[-1] % 2:
        raise ValueError(f"x must be [..., 2 C] with no side 0, got {list(x.shape)}")
    y: Tensor = _forward(x)
    return y


def reference(x: Tensor) -> Tensor:
    """Return what the kernel must equal, in plain PyTorch on any device."""
    hidden, gate = _exact(x).chunk(2, dim=-1)
    return (hidden * gate * _normal(gate)).to(x.dtype).contiguous()


def reference_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Return what the kernel's gradient of x must equal, from that of y."""
    hidden, gate = _exact(x).chunk(2, dim=-1)
    u = _exact(gradient)
    normal = _normal(gate)
    density = (-gate * gate / 2).exp() / math.sqrt(2 * math.pi)
    halves = u * gate * normal, u * hidden * (normal + gate * density)
    return torch.cat(halves, dim=-1).to(x.dtype)


def _exact(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _normal(gate: Tensor) -> Tensor:
    return (1 + torch.erf(gate / math.sqrt(2))) / 2


def _suits_triton(x: Tensor) -> bool:
    return has_triton() and x.dtype != torch.float64


@torch.library.custom_op("dragnoise::geglu", mutates_args=())
def _forward(x: Tensor) -> Tensor:
    return reference(x)


@_forward.register_kernel("cuda")
def _(x: Tensor) -> Tensor:
    if not _suits_triton(x):
        return reference(x)
    from .gpu.geglu import forward

    return forward(x)


@_forward.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:-1], x.shape[-1] // 2)


@torch.library.custom_op("dragnoise::geglu_gradient", mutates_args=())
def _gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of x, contiguous."""
    return reference_gradient(gradient, x)


@_gradient.register_kernel("cuda")
def _(gradient: Tensor, x: Tensor) -> Tensor:
    if not _suits_triton(x):
        return reference_gradient(gradient, x)
    from .gpu.geglu import backward

    return backward(gradient, x)


@_gradient.register_fake
def _(gradient: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _keep(
    ctx: torch.autograd.function.FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
    (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
    of_x: Tensor = _gradient(gradient, x)
    return of_x


_forward.register_autograd(_backward, setup_context=_keep)
