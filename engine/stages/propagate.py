"""From the noisy latent back to a clean one, with the optimum in place."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..methods import Method, Scene

__all__ = ["propagate"]


@torch.no_grad()
def propagate(
    method: Method,
    scene: Scene,
    constants: object,
    variable: Tensor,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Tensor:
    """The clean float32 latent [1, 4, h, w]: every remaining DDIM step of the schedule, with the method's own noise predictor.

    `constants` and `variable` are the drag's (`Optimum`); another variable of the same shape may be given.
    """
    noise = method.propagate(scene, constants, variable)
    latent = scene.latent
    for done, (index, timestep) in enumerate(
        scene.schedule.active(scene.config.active_steps), start=1
    ):
        latent = scene.schedule.denoise(noise(index, timestep, latent), latent, timestep)
        if on_step is not None:
            on_step(done)
    return latent
