"""Run the two halves of a VAE as parts: functions of tensors alone, as the parts of the U-Net."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .parts import VAE_DECODER, VAE_ENCODER, Part, PartFunction, PartWrapper

__all__ = ["Autoencoder"]


class Autoencoder:
    """A VAE in two parts. Latents here are the VAE's own: not scaled.

    Args:
        network: An `AutoencoderKL`, or for the decoder alone an `AutoencoderTiny`.
        wrap: Returns what is run in a part's place; None to run the parts themselves.
    """

    def __init__(self, network: Any, wrap: PartWrapper | None = None) -> None:
        self.network = network
        self._wrap = wrap
        self._wrapped: dict[Part, PartFunction] = {}

    @property
    def functions(self) -> Mapping[Part, PartFunction]:
        """The parts themselves, whatever is run in their place."""
        return {VAE_ENCODER: self.part_encoder, VAE_DECODER: self.part_decoder}

    def encode(self, pixels: Tensor) -> Tensor:
        """Return the mean of the posterior [B, 4, h, w].

        Args:
            pixels: [B, 3, H, W] in -1..1, in the VAE's precision, as the result is.
        """
        mean: Tensor = self._run(VAE_ENCODER)(pixels)
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Return pixels [B, 3, H, W], nominally in -1..1, of a latent [B, 4, h, w]."""
        pixels: Tensor = self._run(VAE_DECODER)(latent)
        return pixels

    def part_encoder(self, pixels: Tensor) -> Tensor:
        mean: Tensor = self.network.encode(pixels).latent_dist.mean
        return mean

    def part_decoder(self, latent: Tensor) -> Tensor:
        pixels: Tensor = self.network.decode(latent).sample
        return pixels

    def _run(self, part: Part) -> PartFunction:
        """Return what runs a part: the backend's, wrapped when it is first wanted."""
        if self._wrap is None:
            return self.functions[part]
        if part not in self._wrapped:
            self._wrapped[part] = self._wrap(part, self.functions[part])
        return self._wrapped[part]
