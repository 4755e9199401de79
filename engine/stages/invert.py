"""Latent to noise: DDIM inversion."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning

__all__ = ["invert"]


@torch.no_grad()
def invert(
    model: Model,
    latent: Tensor,
    conditioning: Conditioning,
    active: int,
    *,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Tensor, ...]:
    """The trajectory: `active` + 1 float32 latents [1, 4, h, w], from the clean one to the noisy one at which the drag happens.

    `active` of the schedule's steps are inverted, each with one pass, guided as `conditioning` says.
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
