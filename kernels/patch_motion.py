"""Motion supervision: every handle's patch against the patch one unit step towards its target.

For a handle p (whole numbers) with target q, d = (q - p) / |q - p|, K = 2 r + 1 and F upsampled
bilinearly to the supervision resolution, the loss is an L1 distance:

    loss = sum over points with |q - p| >= 2 of
           K^2 * mean over channels and patch of | sg[F(p + o)] - F(p + d + o) |,  o in [-r, r]^2

sg stops the gradient: only the shifted patch moves the features. (DragDiffusion, equation 3, as
DragNoise's code has it: the source is the current map's.) With s the sign of the difference and
U, V the rows of both bilinears composed (bilinear.py), the gradient is

    dloss / dF[c, y, x] = 1 / C * sum over points and o of  s[c, o] * U[o, y] * V[o, x]

| tensor   | shape     | dtype                      | meaning                                      |
|----------|-----------|----------------------------|----------------------------------------------|
| features | [C, h, w] | any float; differentiated  | the small map, finite, any strides           |
| handles  | [N, 2]    | int64                      | (row, column) at the supervision resolution  |
| targets  | [N, 2]    | int64                      | likewise; may lie outside the map            |
| loss     | []        | float32, float64 for such  | computed in this dtype whatever the map's    |
| gradient | [C, h, w] | as features                | summed in float32 and rounded once; in the   |
|          |           |                            | memory order of features                     |

The map is never upsampled: a row of a patch has at most four rows of the small map in it. Rows and
columns outside the map repeat the border. If the border makes both patches the same, their
difference is rounding noise whose sign would decide the gradient: differences of at most `TIE`
units of rounding count as zero, with gradient zero. (A wider dead zone is not harmless: 8 units
swallowed a true difference in a recorded run and turned its gradient by 3 %.) The kernels mix as
a + f (b - a), so that there the difference is zero to the last bit, and keep the dead zone. The
reference sums products instead, and its noise may reach a third unit; whether it does depends on
the processor's instructions.

Loss and gradient come from one pass, and the backward pass only scales. A Triton program owns a
group of channels on one tile of the small map: it visits every point that touches the tile, and
writes its part of the gradient once. The native kernel visits the points one after another, in
groups of channels, and adds to the few positions under a patch. Both add in a fixed order.
"""

from typing import Any

import torch
from torch import Tensor

from .bilinear import shifted_weights
from .has_native import has_native
from .has_triton import has_triton

__all__ = [
    "REACHED",
    "TIE",
    "distances",
    "motion_loss",
    "patches",
    "reference",
    "reference_loss",
]

REACHED = 2.0
"""Distance to the target, in supervision pixels, from which on a handle still has to move."""

TIE = 2
"""Units of rounding up to which a difference counts as zero."""


def motion_loss(
    features: Tensor, handles: Tensor, targets: Tensor, resolution: tuple[int, int], radius: int
) -> Tensor:
    """Return the loss above, differentiable in `features` once, without waiting for the device.

    Args:
        features: [C, h, w], any float dtype and strides.
        handles: [N, 2] int64, (row, column) at the supervision resolution.
        targets: [N, 2] int64, likewise. Points nearer than `REACHED` to theirs do not count.
        resolution: (H, W) of the upsampled map, at least 1 each.
        radius: r in positions of the upsampled map, 0 or more.

    Returns:
        A scalar, float32, or float64 if the features are.

    Raises:
        ValueError: Shapes, dtypes or devices do not fit each other.
    """
    _check(features, handles, targets, resolution, radius)
    loss: Tensor = _patch_motion(features, handles, targets, *resolution, radius)[0]
    return loss


def reference(
    features: Tensor, handles: Tensor, targets: Tensor, resolution: tuple[int, int], radius: int
) -> tuple[Tensor, Tensor]:
    """Return what the kernels must equal, loss and gradient, in plain PyTorch on any device.

    Float64 features are computed with in float64. The gradient is written out, not autograd's.
    """
    moving, centres = _steps(handles, targets)
    shifted = patches(features, centres, resolution, radius)
    difference = _difference(shifted, patches(features, handles, resolution, radius))
    sign = difference.sign() * moving[:, None, None, None] / features.shape[0]
    rows, columns = _weights(features, centres, resolution, radius)
    by_row = torch.einsum("nckl,nlw->nckw", sign, columns)
    gradient = torch.einsum("nckw,nkh->chw", by_row, rows)
    return _loss(difference, moving), torch.empty_like(features).copy_(gradient)


def reference_loss(
    features: Tensor, handles: Tensor, targets: Tensor, resolution: tuple[int, int], radius: int
) -> Tensor:
    """Return the loss of `reference` alone, with a gradient by autograd."""
    moving, centres = _steps(handles, targets)
    source = patches(features.detach(), handles, resolution, radius)
    shifted = patches(features, centres, resolution, radius)
    return _loss(_difference(shifted, source), moving)


def distances(handles: Tensor, targets: Tensor) -> Tensor:
    """Return every handle's distance to its target, float32 [N], in supervision pixels."""
    lengths: Tensor = torch.linalg.vector_norm((targets - handles).float(), dim=1)
    return lengths


def patches(features: Tensor, centres: Tensor, resolution: tuple[int, int], radius: int) -> Tensor:
    """Return patches of the upsampled map, differentiable in `features`.

    Args:
        features: [C, h, w].
        centres: [N, 2], (row, column), fractions allowed.
        resolution: (H, W) of the upsampled map.
        radius: r in positions of it.

    Returns:
        [N, C, 2 r + 1, 2 r + 1], float32, or float64 if the features are.
    """
    rows, columns = _weights(features, centres, resolution, radius)
    by_row = torch.einsum("nkh,chw->nckw", rows, features.to(rows.dtype))
    sampled: Tensor = torch.einsum("nckw,nlw->nckl", by_row, columns)
    return sampled


def _steps(handles: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which points count, float32 [N], and the places one step on, float32 [N, 2]."""
    distance = distances(handles, targets)
    direction = (targets - handles).float() / distance.clamp(min=REACHED)[:, None]
    return (distance >= REACHED).float(), handles + direction


def _weights(
    features: Tensor, centres: Tensor, resolution: tuple[int, int], radius: int
) -> tuple[Tensor, Tensor]:
    """Return the weights of the patches: rows [N, 2 r + 1, h] and columns [N, 2 r + 1, w]."""
    first = centres.to(_computed_in(features)) - radius
    count = 2 * radius + 1
    rows = shifted_weights(first[:, 0], count, features.shape[1], resolution[0])
    return rows, shifted_weights(first[:, 1], count, features.shape[2], resolution[1])


def _difference(shifted: Tensor, source: Tensor) -> Tensor:
    """Return shifted - source, zero in the dead zone."""
    difference = shifted - source
    rounding = torch.finfo(source.dtype).eps * (shifted.detach().abs() + source.abs())
    return difference.masked_fill(difference.detach().abs() <= TIE * rounding, 0)


def _loss(difference: Tensor, moving: Tensor) -> Tensor:
    by_point = difference.abs().mean(dim=(1, 2, 3))
    return difference.shape[2] * difference.shape[3] * (by_point * moving).sum()


def _computed_in(features: Tensor) -> torch.dtype:
    return torch.float64 if features.dtype == torch.float64 else torch.float32


def _check(
    features: Tensor, handles: Tensor, targets: Tensor, resolution: tuple[int, int], radius: int
) -> None:
    if features.ndim != 3 or 0 in features.shape or not features.is_floating_point():
        seen = f"{list(features.shape)} {features.dtype}"
        raise ValueError(f"features must be [C, h, w] floats with no side 0, got {seen}")
    for name, points in (("handles", handles), ("targets", targets)):
        if points.ndim != 2 or points.shape[1] != 2 or points.dtype != torch.int64:
            raise ValueError(
                f"{name} must be [N, 2] int64, got {list(points.shape)} {points.dtype}"
            )
    if handles.shape != targets.shape:
        raise ValueError(
            f"every handle has a target: got {handles.shape[0]} handles "
            f"and {targets.shape[0]} targets"
        )
    if not features.device == handles.device == targets.device:
        raise ValueError(f"devices differ: {features.device}, {handles.device}, {targets.device}")
    if min(resolution) < 1 or radius < 0:
        raise ValueError(
            "resolution must be at least (1, 1) and radius at least 0, "
            f"got {resolution} and {radius}"
        )


@torch.library.custom_op("dragnoise::patch_motion", mutates_args=())
def _patch_motion(
    features: Tensor, handles: Tensor, targets: Tensor, rows: int, columns: int, radius: int
) -> tuple[Tensor, Tensor]:
    return reference(features, handles, targets, (rows, columns), radius)


@_patch_motion.register_fake
def _(
    features: Tensor, handles: Tensor, targets: Tensor, rows: int, columns: int, radius: int
) -> tuple[Tensor, Tensor]:
    return features.new_empty((), dtype=_computed_in(features)), torch.empty_like(features)


@_patch_motion.register_kernel("cpu")
def _(
    features: Tensor, handles: Tensor, targets: Tensor, rows: int, columns: int, radius: int
) -> tuple[Tensor, Tensor]:
    if features.dtype == torch.float64 or not has_native():
        return reference(features, handles, targets, (rows, columns), radius)
    from . import _native

    exact = features.float()
    gradient = torch.zeros_like(exact)
    loss = _native.patch_motion(
        exact,
        handles.contiguous(),
        targets.contiguous(),
        (rows, columns),
        radius,
        REACHED,
        TIE,
        gradient,
    )
    return torch.tensor(loss, dtype=torch.float32), gradient.to(features.dtype)


@_patch_motion.register_kernel("cuda")
def _(
    features: Tensor, handles: Tensor, targets: Tensor, rows: int, columns: int, radius: int
) -> tuple[Tensor, Tensor]:
    if features.dtype == torch.float64 or not has_triton():
        return reference(features, handles, targets, (rows, columns), radius)
    from .gpu.patch_motion import launch

    return launch(features, handles, targets, (rows, columns), radius, REACHED, TIE)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # or autograd fills zeros for it at every call: a launch


def _backward(
    ctx: Any, by_loss: Tensor, _: Tensor | None
) -> tuple[Tensor, None, None, None, None, None]:
    (gradient,) = ctx.saved_tensors
    return by_loss * gradient, None, None, None, None, None


_patch_motion.register_autograd(_backward, setup_context=_keep_gradient)
