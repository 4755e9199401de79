"""The mask term: a penalty on changing the prediction where it must stay, and its gradient.

For the predicted noise eps, its value eps_0 in the reference pass, c = d(previous latent) / d(eps)
of the step (linear: `Schedule.slope`), the mask of what must stay (1 - M in the papers) and lambda:

    loss            = lambda * sum | c (eps - eps_0) (1 - M) |
    d loss / d eps  = lambda * c (1 - M) * sign( c (eps - eps_0) (1 - M) ),   sign(0) = 0

(DragDiffusion, equation 3, second term.) The sum runs over all four channels; eps_0 and the mask
carry no gradient. Loss and gradient come from one pass.

    name      shape         dtype
    noise     [B, C, h, w]  any float    eps, any strides
    original  [B, C, h, w]  any float    eps_0, any strides
    keep      [1, 1, h, w]  any float    1 - M; also [B, 1, h, w]
    slope     number                     c
    lam       number                     lambda
    loss      []            float32, float64 if noise is
    gradient  [B, C, h, w]  as noise     computed in the loss's dtype

On a GPU one program owns `BLOCK` places of one entry, in all channels (so a place of the mask is
read once): it writes their gradient and one partial sum, and the partial sums are added in their
order. The native kernel sums row by row. Both give the same bits every time.
"""

from typing import Any

import torch
from torch import Tensor

from .has_native import has_native
from .has_triton import has_triton

__all__ = ["latent_term", "reference"]


def latent_term(noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float) -> Tensor:
    """Return the loss above, differentiable in `noise` once, without waiting for the device.

    Args:
        noise: eps, [B, C, h, w], any float dtype and strides.
        original: eps_0, of the same shape.
        keep: 1 - M, [1, 1, h, w] or one for each entry.
        slope: c.
        lam: lambda.

    Returns:
        A scalar, float32, or float64 if `noise` is.

    Raises:
        ValueError: Shapes or devices do not fit each other.
    """
    _check(noise, original, keep)
    loss: Tensor = _latent_term(noise, original.detach(), keep.detach(), slope, lam)[0]
    return loss


def reference(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return what the kernels must equal, loss and gradient, in plain PyTorch on any device."""
    exact = _computed_in(noise)
    kept = slope * keep.to(exact)
    moved = kept * (noise.to(exact) - original.to(exact))
    gradient = torch.empty_like(noise).copy_(lam * kept * moved.sign())
    return lam * moved.abs().sum(), gradient


def _computed_in(noise: Tensor) -> torch.dtype:
    return torch.float64 if noise.dtype == torch.float64 else torch.float32


def _check(noise: Tensor, original: Tensor, keep: Tensor) -> None:
    if noise.ndim != 4 or 0 in noise.shape:
        raise ValueError(f"noise must be [B, C, h, w] with no side 0, got {list(noise.shape)}")
    if original.shape != noise.shape:
        raise ValueError(
            f"original must be {list(noise.shape)} as noise is, got {list(original.shape)}"
        )
    if (
        keep.ndim != 4
        or keep.shape[0] not in (1, noise.shape[0])
        or keep.shape[1:] != (1, *noise.shape[2:])
    ):
        raise ValueError(
            f"keep must be {[1, 1, *noise.shape[2:]]}, or one for each entry, "
            f"got {list(keep.shape)}"
        )
    if not noise.device == original.device == keep.device:
        raise ValueError(f"devices differ: {noise.device}, {original.device}, {keep.device}")


@torch.library.custom_op("dragnoise::latent_term", mutates_args=())
def _latent_term(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    return reference(noise, original, keep, slope, lam)


@_latent_term.register_fake
def _(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    return noise.new_empty((), dtype=_computed_in(noise)), torch.empty_like(noise)


@_latent_term.register_kernel("cpu")
def _(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    suits = noise.dtype == original.dtype == keep.dtype == torch.float32
    if not (suits and has_native()):
        return reference(noise, original, keep, slope, lam)
    from . import _native

    gradient = torch.empty_like(noise)
    loss = _native.latent_term(noise, original, keep, slope, lam, gradient)
    return torch.tensor(loss, dtype=torch.float32), gradient


@_latent_term.register_kernel("cuda")
def _(
    noise: Tensor, original: Tensor, keep: Tensor, slope: float, lam: float
) -> tuple[Tensor, Tensor]:
    if noise.dtype == torch.float64 or not has_triton():
        return reference(noise, original, keep, slope, lam)
    from .gpu.latent_term import launch

    return launch(noise, original, keep, slope, lam)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # or autograd fills zeros for it at every call: a launch


def _backward(ctx: Any, by_loss: Tensor, _: Tensor | None) -> tuple[Tensor, None, None, None, None]:
    (gradient,) = ctx.saved_tensors
    return by_loss * gradient, None, None, None, None


_latent_term.register_autograd(_backward, setup_context=_keep_gradient)
