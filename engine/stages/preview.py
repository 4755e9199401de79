"""Show the picture that is expected, while the drag goes on."""

from typing import Any

import torch
from torch import Tensor

from ..diffusion.vae import Autoencoder
from ..drag.loop import Iteration
from ..drag.method import AnyMethod
from ..drag.scene import Scene
from .decode import decode

__all__ = ["preview"]


@torch.no_grad()
def preview(
    method: AnyMethod,
    scene: Scene[Any, Any],
    constants: object,
    iteration: Iteration[Any],
    decoder: Autoencoder | None = None,
) -> Tensor:
    """Return pixels [1, 3, H, W] of the clean latent that the method expects at an iteration.

    Args:
        constants: The method's own, of its start.
        decoder: A smaller VAE; None: the model's own.
    """
    clean = method.preview(scene, constants, iteration.variable, iteration.forward)
    return decode(scene.place.model, clean, decoder)
