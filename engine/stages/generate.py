"""Noise to latent: DDIM sampling. What is generated needs no inversion to be dragged: the way here is the trajectory."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning

__all__ = ["draw_noise", "generate"]


def draw_noise(model: Model, size: tuple[int, int], seed: int) -> Tensor:
    """Standard normal float32 [1, 4, h, w], size = (h, w) in latent cells: drawn on the CPU, so that a seed means the same noise on every device.

    It is the noise of a diffusers pipeline whose `generator` is a CPU one with that seed.
    """
    noise = torch.randn(
        (1, model.unet.network.config["in_channels"], *size),
        generator=torch.Generator().manual_seed(seed),
    )
    return noise.to(model.device)


@torch.no_grad()
def generate(
    model: Model,
    conditioning: Conditioning,
    noise: Tensor,
    *,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Tensor, ...]:
    """The trajectory: float32 latents [1, 4, h, w], one more than the schedule has steps, from the clean one to `noise`, as `invert` orders them.

    The one at n is what n further steps make clean, so the first `active` + 1 are what inverting `active` steps gives, but for the inversion's error.
    """
    schedule = model.schedule(len(conditioning.timesteps))
    trajectory = [noise]
    for index, timestep in enumerate(schedule.timesteps):
        eps = schedule.noise(
            model.unet(trajectory[-1], conditioning.at(timestep)), trajectory[-1], timestep
        )
        trajectory.append(schedule.denoise(eps, trajectory[-1], timestep))
        if on_step is not None:
            on_step(index + 1)
    return tuple(reversed(trajectory))
