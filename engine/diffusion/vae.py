"""The two halves of a VAE as functions of tensors alone, so that a backend can run either in its own way, as it runs the parts of the U-Net."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

__all__ = ["Autoencoder"]

Prepare = Callable[[str, Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]
"""("encoder" or "decoder", that half) -> what is run in its place."""


class Autoencoder:
    """network: an `AutoencoderKL`, or for the decoder alone an `AutoencoderTiny`. Latents here are the VAE's own: not scaled."""

    def __init__(self, network: Any, prepare: Prepare | None = None) -> None:
        self.network, self._prepare = network, prepare
        self._prepared: dict[str, Callable[[Tensor], Tensor]] = {}

    def encode(self, pixels: Tensor) -> Tensor:
        """The mean of the posterior [B, 4, h, w] of pixels [B, 3, H, W] in -1..1, both in the VAE's precision."""
        return self._run("encoder", self.part_encoder)(pixels)

    def decode(self, latent: Tensor) -> Tensor:
        """Pixels [B, 3, H, W], nominally in -1..1, of a latent [B, 4, h, w]."""
        return self._run("decoder", self.part_decoder)(latent)

    def part_encoder(self, pixels: Tensor) -> Tensor:
        mean: Tensor = self.network.encode(pixels).latent_dist.mean
        return mean

    def part_decoder(self, latent: Tensor) -> Tensor:
        pixels: Tensor = self.network.decode(latent).sample
        return pixels

    def _run(self, half: str, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        if self._prepare is None:
            return function
        if half not in self._prepared:
            self._prepared[half] = self._prepare(half, function)
        return self._prepared[half]
