"""Motion supervision: the L1 distance between the patch under every handle and the patch one unit step towards its target.

For a handle p (whole numbers) with target q, d = (q - p) / |q - p|, K = 2 r + 1 and F upsampled bilinearly to the supervision resolution:

    loss = sum over points with |q - p| >= 2 of  K^2 * mean over channels and patch of | sg[F(p + o)] - F(p + d + o) |,  o in [-r, r]^2

sg stops the gradient: only the shifted patch moves the features. (DragDiffusion, equation 3, as DragNoise's code has it: the source is
the current map's.)

| tensor     | shape     | dtype                       | meaning                                        |
|------------|-----------|-----------------------------|------------------------------------------------|
| features   | [C, h, w] | any float; differentiated   | the small map                                  |
| handles    | [N, 2]    | int64                       | (row, column) at the supervision resolution    |
| targets    | [N, 2]    | int64                       | likewise; may lie outside the map              |
| result     | []        | float32, float64 for such   | the loss                                       |

The map is never upsampled: rows of the upsampled map are weights over the small map's rows (bilinear.py), a patch is two small matrix products,
and autograd gives their transposes. Rows and columns outside the map repeat the border. Where the border makes both patches the same, their
difference is rounding noise whose sign would decide the gradient: differences of at most `TIE` units of rounding count as nought, with gradient
nought. (A wider dead zone is not harmless: 8 units swallowed a true difference in a recorded run and turned its gradient by 3 %.)
"""

import torch
from torch import Tensor

from .bilinear import shifted_weights

__all__ = ["REACHED", "TIE", "distances", "motion_loss", "patches"]

REACHED = 2.0
TIE = 2


def distances(handles: Tensor, targets: Tensor) -> Tensor:
    """Euclidean distance of every handle to its target, float32 [N], in supervision pixels."""
    lengths: Tensor = torch.linalg.vector_norm((targets - handles).float(), dim=1)
    return lengths


def patches(features: Tensor, centres: Tensor, resolution: tuple[int, int], radius: int) -> Tensor:
    """Patches of the upsampled map around `centres` [N, 2] (row, column), fractions allowed: [N, C, 2 r + 1, 2 r + 1], float32 or float64.

    features: [C, h, w]. resolution: (H, W) of the upsampled map. Differentiable in `features`.
    """
    exact = features if features.dtype == torch.float64 else features.float()
    first = centres.to(exact.dtype) - radius
    count = 2 * radius + 1
    rows = shifted_weights(first[:, 0], count, features.shape[1], resolution[0])
    columns = shifted_weights(first[:, 1], count, features.shape[2], resolution[1])
    return torch.einsum("nckw,nlw->nckl", torch.einsum("nkh,chw->nckw", rows, exact), columns)


def motion_loss(features: Tensor, handles: Tensor, targets: Tensor, resolution: tuple[int, int], radius: int) -> Tensor:
    """The loss above, a scalar; see the table for shapes. Points nearer than `REACHED` to their target do not count. No host synchronisation."""
    distance = distances(handles, targets)
    moving = (distance >= REACHED).float()
    direction = (targets - handles).float() / distance.clamp(min=REACHED)[:, None]
    source = patches(features.detach(), handles, resolution, radius)
    shifted = patches(features, handles + direction, resolution, radius)
    difference = shifted - source
    rounding = torch.finfo(source.dtype).eps * (shifted.detach().abs() + source.abs())
    tied = difference.detach().abs() <= TIE * rounding
    by_point = difference.masked_fill(tied, 0).abs().mean(dim=(1, 2, 3))
    return (2 * radius + 1) ** 2 * (by_point * moving).sum()
