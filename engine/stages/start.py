"""What all drags at one place share: what a method computes before its first update, and what its first forward pass shows."""

import torch
from torch import Tensor

from ..config import DragConfig
from ..diffusion.model import Model
from ..diffusion.unet import Conditioning
from ..methods import Forward, Method, Place, Scene, Start

__all__ = ["place", "reference", "start"]


def place(model: Model, latent: Tensor, conditioning: Conditioning, active: int) -> Place:
    """Where the drag happens: at the latent [1, 4, h, w] that `active` steps of the schedule have inverted."""
    steps = len(conditioning.timesteps)
    return Place(model, model.schedule(steps), steps - active, latent, conditioning)


@torch.no_grad()
def start(
    method: Method, model: Model, latent: Tensor, conditioning: Conditioning, active: int
) -> Start:
    """`method.start` at that place."""
    return method.start(place(model, latent, conditioning, active))


def reference(
    method: Method,
    model: Model,
    latent: Tensor,
    conditioning: Conditioning,
    active: int,
    start: Start,
    noise: bool,
) -> Forward:
    """What the first forward pass of a drag shows, bit for bit: the features, and eps where `noise` asks for it."""
    here = place(model, latent, conditioning, active)
    nowhere = torch.zeros(0, 2, dtype=torch.int64)
    scene = Scene(
        **vars(here),
        handles=nowhere,
        targets=nowhere,
        resolution=(0, 0),
        keep=None,
        config=DragConfig(),
        wants_noise=noise,
    )
    with torch.enable_grad():  # as the drag runs it: kernels may be others without
        leaf = start.variable.to(model.dtype).detach().requires_grad_()
        return method.features(scene, start.constants, leaf).detach()
