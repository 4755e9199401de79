"""Latent to noise: DDIM inversion."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning
from ..run import kept

__all__ = ["invert"]


@kept(on_disk=True)
@torch.no_grad()
def invert(
    model: Model,
    latent: Tensor,
    conditioning: Conditioning,
    active: int,
    *,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Tensor, ...]:
    """Return the trajectory from a clean latent to the noisy one at which the drag happens.

    Args:
        latent: The clean latent, float32 [1, 4, h, w].
        conditioning: Prompt, schedule and guidance.
        active: Steps of the schedule that are inverted, each with one pass.

    Returns:
        `active` + 1 latents, float32 [1, 4, h, w] each, the clean one first.
    """
    schedule = model.schedule(len(conditioning.timesteps))
    trajectory = [latent]
    for _, timestep in reversed(schedule.active(active)):
        eps = schedule.noise(
            model.unet(trajectory[-1], conditioning.at(timestep)), trajectory[-1], timestep
        )
        trajectory.append(schedule.invert(eps, trajectory[-1], timestep))
        if on_step is not None:
            on_step(len(trajectory) - 1)
    return tuple(trajectory)
