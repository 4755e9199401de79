"""A loaded Stable Diffusion model: the networks, frozen, and what belongs to them. How it gets here is `load`'s business."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKL

from ..cache.digest import digest
from ..config import DragConfig
from .schedule import Schedule
from .unet import UNet
from .vae import Autoencoder
from .weights import Weights

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """name: where it came from. scheduler: its scheduler's configuration. defaults: the drag settings it brings (`drag.json`), else ours.

    how: what runs it and what was merged into it, by name: the same weights run otherwise give other bits.
    halves: what runs the VAE; PyTorch where it is None. loaded_with: what the command line says beside `name` to load it again.

    A VAE that we load runs in float32 where the U-Net is float16, because it overflows there; a pipeline keeps its own.
    """

    name: str
    unet: UNet
    vae: AutoencoderKL
    text_encoder: Any
    tokenizer: Any
    scheduler: Mapping[str, Any]
    device: torch.device
    defaults: DragConfig = field(default_factory=DragConfig)
    how: tuple[str, ...] = ()
    weights: Weights | None = None
    halves: Autoencoder | None = None
    loaded_with: tuple[str, ...] = ()

    @property
    def autoencoder(self) -> Autoencoder:
        return Autoencoder(self.vae) if self.halves is None else self.halves

    @property
    def digest(self) -> str:
        """What it computes, by content. The first call reads all weights (`read`)."""
        return digest(
            self.read().digest, dict(self.scheduler), str(self.dtype), str(self.vae.dtype), self.how
        )

    def read(self) -> Weights:
        """The weights it was loaded with."""
        if self.weights is None:
            networks = {
                "unet": self.unet.network,
                "vae": self.vae,
                "text_encoder": self.text_encoder,
            }
            object.__setattr__(self, "weights", Weights(networks, self.tokenizer))
        assert self.weights is not None
        return self.weights

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def factor(self) -> int:
        """How many pixels a latent cell spans on each side: 8 for Stable Diffusion."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    def schedule(self, steps: int) -> Schedule:
        """The DDIM schedule of that many steps."""
        return Schedule.of(self.scheduler, steps)
