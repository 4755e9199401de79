"""Latent to pixels."""

import torch
from torch import Tensor

from ..diffusion.model import Model

__all__ = ["decode"]


@torch.no_grad()
def decode(model: Model, latent: Tensor) -> Tensor:
    """float32 pixels [1, 3, H, W], nominally in -1..1 (not clamped), of a latent [1, 4, h, w]."""
    return model.autoencoder.decode(
        (latent / model.vae.config["scaling_factor"]).to(model.vae.dtype)
    ).float()
