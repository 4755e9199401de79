"""How well the VAE gives a picture back: how well the model knows such pictures."""

import math

import torch
from torch import Tensor

from ..diffusion.model import Model
from ..run import kept
from .decode import decode

__all__ = ["rebuild"]


@kept(on_disk=True)
@torch.no_grad()
def rebuild(model: Model, latent: Tensor, pixels: Tensor) -> float:
    """Return the peak signal-to-noise ratio, in dB, of a picture that was only encoded and decoded.

    Args:
        latent: What encoding the pixels gave.
        pixels: [1, 3, H, W] in -1..1.
    """
    rebuilt = decode(model, latent)[..., : pixels.shape[2], : pixels.shape[3]].clamp(-1, 1)
    whole = pixels[..., : rebuilt.shape[2], : rebuilt.shape[3]].to(rebuilt.device)
    error = (rebuilt - whole).div(2).square().mean().item()
    return -10 * math.log10(max(error, 1e-10))
