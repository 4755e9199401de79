"""From a noisy latent back to a clean one, with a drag's optimum in place."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.place import Place
from ..drag.method import AnyMethod
from ..drag.scene import Scene

__all__ = ["Denoising", "Predictor", "denoise", "propagate"]

Predictor = Callable[[int, int, Tensor], Tensor]
"""(index of the step, timestep, latent) -> eps, float32 [1, 4, h, w]."""


@dataclass(frozen=True, eq=False)
class Denoising:
    """A start of the denoising and a noise predictor: a method's answer to a drag.

    Attributes:
        latent: float32 [1, 4, h, w], noisy, at the drag's step.
        noise: The noise predictor, with the drag's optimum in it.
        after: (steps done, latent) -> the latent that goes on; None: it goes on as it is.
        ended: () -> whether to stop after this step, with the latent as it is; None: never.
    """

    latent: Tensor
    noise: Predictor
    after: Callable[[int, Tensor], Tensor] | None = None
    ended: Callable[[], bool] | None = None


@torch.no_grad()
def propagate(
    method: AnyMethod,
    scene: Scene[Place, Any],
    constants: object,
    variable: Tensor,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """Return the clean latent that a drag's optimum becomes, float32 [1, 4, h, w].

    Args:
        method: Its `finish` says where denoising starts and what predicts the noise.
        constants: The method's own.
        variable: The optimum; another variable of the same shape may be given.
    """
    place = scene.place
    schedule = place.schedule
    denoising: Denoising = method.finish(scene, constants, variable)
    latent = denoising.latent
    for done, (index, timestep) in enumerate(schedule.active(place.active_steps), start=1):
        eps = denoising.noise(index, timestep, latent)
        latent = schedule.denoise(eps, latent, timestep)
        if denoising.after is not None:
            latent = denoising.after(done, latent)
        if on_step is not None:
            on_step(done)
        if denoising.ended is not None and denoising.ended():
            break
    return latent


@torch.no_grad()
def denoise(place: Place, latent: Tensor) -> Tensor:
    """Return a latent [1, 4, h, w] one denoising step after a place."""
    output = place.model.unet(latent, place.step)
    noise = place.schedule.noise(output, latent, place.timestep)
    return place.schedule.denoise(noise, latent, place.timestep)
