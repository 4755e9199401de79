"""The unedited picture's own denoising, for what it shows to the edited one's."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..cache.structure import storable
from ..diffusion.place import Place
from ..diffusion.unet.mutual import Shown
from ..run import kept

__all__ = ["Showing", "show"]


@storable
@dataclass(frozen=True, eq=False)
class Showing:
    """What a picture's denoising shows to another's.

    Attributes:
        steps: Keys and values of the last self-attentions by denoising step; empty where nothing
            is read.
    """

    steps: tuple[Shown, ...]


@kept(on_disk=False)
@torch.no_grad()
def show(
    place: Place,
    first_step: int,
    first_layer: int,
    *,
    on_step: Callable[[int], None] | None = None,
) -> Showing:
    """Denoise the picture at a place as it is, and keep what its self-attentions show.

    Args:
        place: Its latent is denoised.
        first_step: First denoising step, from 0, that shows anything.
        first_layer: First self-attention that does.
    """
    unet = place.model.unet
    latent = place.latent
    steps: list[Shown] = []
    if first_layer >= unet.self_attentions:
        return Showing(((),) * place.active_steps)
    for number, (_, timestep) in enumerate(place.schedule.active(place.active_steps)):
        step = place.conditioning.at(timestep)
        if number < first_step:
            output = unet(latent, step)
            steps.append(())
        else:
            output, shown = unet.showing(latent, step, first_layer)
            steps.append(shown)
        eps = place.schedule.noise(output, latent, timestep)
        latent = place.schedule.denoise(eps, latent, timestep)
        if on_step is not None:
            on_step(number + 1)
    return Showing(tuple(steps))
