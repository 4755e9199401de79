"""Noise to latent: DDIM sampling. A generated picture needs no inversion."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.unet import Conditioning
from ..run import kept

__all__ = ["draw_noise", "generate"]


def draw_noise(model: Model, size: tuple[int, int], seed: int) -> Tensor:
    """Draw standard normal noise on the CPU, so that a seed means the same on every device.

    It is the noise of a diffusers pipeline whose `generator` is a CPU one with that seed.

    Args:
        size: (h, w) in latent cells.

    Returns:
        float32 [1, 4, h, w].
    """
    noise = torch.randn(
        (1, model.unet.config["in_channels"], *size),
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float32,
    )
    return noise.to(model.device)


@kept(on_disk=True)
@torch.no_grad()
def generate(
    model: Model,
    conditioning: Conditioning,
    noise: Tensor,
    *,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Tensor, ...]:
    """Return the trajectory from a clean latent to `noise`, in the order of `invert`.

    The latent at n is the one that n further steps make clean, so the first `active` + 1 are what
    inverting `active` steps gives, but for the inversion's error.

    Args:
        noise: float32 [1, 4, h, w].

    Returns:
        One more latent than the schedule has steps, float32 [1, 4, h, w] each, the clean one first.
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
