"""What the model expects the picture to become, while the drag goes on."""

import dataclasses

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..methods import Method, Scene
from .decode import decode

__all__ = ["preview"]


@torch.no_grad()
def preview(
    model: Model,
    method: Method,
    scene: Scene,
    constants: object,
    variable: Tensor,
    noise: Tensor | None,
) -> Tensor:
    """Pixels [1, 3, H, W] of the predicted clean latent, x0 = (x - sqrt(1 - a) eps) / sqrt(a), decoded by `model`'s VAE.

    noise: eps of a forward pass, where it computed one; None: a pass of its own, on `variable`.
    """
    if noise is None:
        wanting = dataclasses.replace(scene, wants_noise=True)
        noise = method.features(wanting, constants, variable.to(scene.model.dtype)).noise
    assert noise is not None
    return decode(model, scene.schedule.clean(noise, scene.latent, scene.timestep))
