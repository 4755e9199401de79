"""Picture to style vectors, and back: what DragGAN has in place of inversion and denoising."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ..config import StyleInversion
from ..drag.method import Method
from ..drag.scene import Scene
from ..gan.model import GeneratorModel, StylePlace
from ..run import kept

__all__ = ["find_styles", "synthesise"]

CANDIDATES = 64
"""Random style vectors of which the search begins at the most similar ones."""

_SCALES = (1, 2, 4, 8, 16)
_SAMPLES = 1024


@kept(on_disk=True)
def find_styles(
    model: GeneratorModel,
    pixels: Tensor,
    how: StyleInversion,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Find the w+ whose picture is most like a real one (Karras et al. 2020, appendix D).

    The search begins at the best of a few random pictures, of which the first `how.rows` rows and
    the rest are then chosen anew, each for itself. It moves all rows alike, from half of the way on
    each on its own. The loss is the mean squared difference of the
    pictures and of smaller versions of them, plus the mean squared distance to the mean style
    vector in standard deviations, times `how.towards_mean`. The rate falls along a cosine.

    Args:
        pixels: float32 [1, 3, size, size] in -1..1.
        on_step: Called with the updates done.

    Returns:
        float32 [1, rows, w].
    """
    wanted = pixels.to(model.device)
    mean, deviation, begun = _beginning(model, wanted, how.rows)
    alike = torch.zeros_like(begun[:, :1], requires_grad=True)
    own = begun.clone().requires_grad_()
    optimiser = torch.optim.Adam([alike, own], how.lr)
    for step in range(how.steps):
        share = step / how.steps
        optimiser.param_groups[0]["lr"] = how.lr * 0.5 * (1 + math.cos(math.pi * share))
        with torch.enable_grad():
            rows = own + alike
            picture = model.synthesis.picture(rows)
            away = ((rows - mean) / deviation).square().mean()
            loss = _difference(picture, wanted) + how.towards_mean * away
            optimiser.zero_grad()
            loss.backward()
        if share < 0.5:
            own.grad = None
        optimiser.step()
        if on_step is not None:
            on_step(step + 1)
    return (own + alike).detach()


@torch.no_grad()
def synthesise(
    method: Method[StylePlace, Any, Any, Any, Any],
    scene: Scene[StylePlace, Any],
    constants: Any,
    variable: Tensor,
) -> Tensor:
    """Return the picture of a drag's optimum, float32 [1, 3, size, size], about -1..1."""
    pixels: Tensor = method.finish(scene, constants, variable)
    return pixels


@torch.no_grad()
def _beginning(model: GeneratorModel, wanted: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean style vector [w], the deviation from it [], and where to begin, w+."""
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(_SAMPLES, model.architecture.z, generator=draws, dtype=torch.float32).to(
        model.device
    )
    styles = model.network.mapping(z)
    mean = model.network.mean
    deviation = (styles - mean).square().mean().sqrt()
    candidates = torch.cat([mean[None], styles[: CANDIDATES - 1]])
    begun = mean.expand(1, model.architecture.rows, -1)
    for changed in (slice(None), slice(first, None), slice(None, first)):
        begun = _best(model, wanted, begun, candidates, changed)
    return mean, deviation, begun


def _best(
    model: GeneratorModel, wanted: Tensor, begun: Tensor, candidates: Tensor, changed: slice
) -> Tensor:
    """Return w+ with some rows replaced by the candidate [N, w] whose picture is most similar."""
    tried = begun.repeat(len(candidates), 1, 1)
    tried[:, changed] = candidates[:, None]
    errors = [_difference(model.synthesis.picture(rows[None]), wanted) for rows in tried]
    best = int(torch.stack(errors).argmin())
    return tried[best : best + 1]


def _difference(picture: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared difference of two pictures at several scales, []."""
    apart = picture - wanted
    scales = [scale for scale in _SCALES if scale <= apart.shape[-1]]
    errors = [avg_pool2d(apart, scale).square().mean() for scale in scales]
    return torch.stack(errors).sum()
