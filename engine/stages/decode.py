"""Latent to pixels."""

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..diffusion.vae import Autoencoder

__all__ = ["decode"]


@torch.no_grad()
def decode(model: Model, latent: Tensor, decoder: Autoencoder | None = None) -> Tensor:
    """Return float32 pixels [1, 3, H, W], nominally in -1..1 (not clamped), of a latent.

    Args:
        latent: [1, 4, h, w].
        decoder: Another VAE than the model's own.
    """
    vae = model.autoencoder if decoder is None else decoder
    scaling: float = vae.network.config["scaling_factor"]
    return vae.decode((latent / scaling).to(vae.network.dtype)).float()
