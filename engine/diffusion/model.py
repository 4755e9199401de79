"""Hold a loaded Stable Diffusion model: the networks, frozen, and what belongs to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL

from ..cache.digest import digest
from ..config import DragConfig
from .schedule import Schedule
from .unet import UNet
from .vae import Autoencoder
from .weights import Weights

__all__ = ["LoadedFrom", "Model", "latent_shape"]


@dataclass(frozen=True)
class LoadedFrom:
    """A note of how a model was loaded, so that a command can load it again.

    Attributes:
        path: A diffusers folder or a checkpoint.
        config: For a checkpoint, the folder with its configuration.
        variant: Of the weights' files, as in diffusers ("fp16").
        allow_pickle: Whether pickles were allowed.
    """

    path: Path
    config: str | None = None
    variant: str | None = None
    allow_pickle: bool = False


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model. The VAE may have another precision than the U-Net.

    Attributes:
        name: Where it came from, for messages and results.
        unet: The U-Net in parts.
        vae: The VAE's network.
        text_encoder: The text encoder's network.
        tokenizer: The text encoder's.
        scheduler: Configuration of its scheduler.
        device: Where all networks lie.
        defaults: The drag settings that it brings (`drag.json`), else ours.
        how: What runs it and what was merged into it, by name: the same weights run otherwise
            give other bits, so this is part of its digest.
        halves: What runs the VAE; None for PyTorch.
        loaded_from: None for a model that came from no file.
        weights: Shared by all views of one model, so that a merged adapter is seen by all.
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
    halves: Autoencoder | None = None
    loaded_from: LoadedFrom | None = None
    weights: Weights = field(kw_only=True)
    _schedules: dict[int, Schedule] = field(init=False, repr=False, default_factory=dict)

    @property
    def autoencoder(self) -> Autoencoder:
        return Autoencoder(self.vae) if self.halves is None else self.halves

    @property
    def digest(self) -> str:
        """Digest of what it computes. The first call reads all weights."""
        return digest(
            self.weights.digest,
            dict(self.scheduler),
            str(self.dtype),
            str(self.vae.dtype),
            self.how,
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    @property
    def factor(self) -> int:
        """Pixels that a latent cell spans on each side: 8 for Stable Diffusion."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    def schedule(self, steps: int) -> Schedule:
        """Return the DDIM schedule of that many steps, the same object every time."""
        if steps not in self._schedules:
            self._schedules[steps] = Schedule.of(self.scheduler, steps)
        return self._schedules[steps]


def latent_shape(model: Model, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of the latent of a picture of (height, width), as the VAE sees it."""
    channels = int(model.unet.config["in_channels"])
    return (1, channels, *(side // model.factor for side in size))
