"""Run the two halves of a VAE as parts: functions of tensors alone, as the parts of the U-Net."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dragnoise.kernels.group_norm_silu import group_norm_silu

from .parts import VAE_DECODER, VAE_ENCODER, Part, PartFunction, PartWrapper
from .weights import M, frozen_view

__all__ = ["Autoencoder", "fused_vae"]


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


class _NormSilu(nn.GroupNorm):
    """A group normalisation and the SiLU behind it, in a kernel of ours that keeps the layout."""

    def forward(self, hidden: Tensor) -> Tensor:
        return group_norm_silu(hidden, self.num_groups, self.weight, self.bias, self.eps)


_NORMS = {"nonlinearity": ("norm1", "norm2"), "conv_act": ("conv_norm_out",)}
"""The norms that an activation follows, as diffusers' modules call them."""


def fused_vae(vae: M) -> M:
    """Return a VAE on the same memory whose norms and activations are fused, for CUDA.

    Maps lie in channels_last there. PyTorch's own normalisation would lay them out anew, and take
    as long as the convolutions do.
    """
    view = frozen_view(vae)
    for module in view.modules():
        for activation, names in _NORMS.items():
            norms = [getattr(module, name, None) for name in names]
            plain = all(type(norm) is nn.GroupNorm for norm in norms)
            if plain and isinstance(getattr(module, activation, None), nn.SiLU):
                setattr(module, activation, nn.Identity())
                for norm in norms:
                    norm.__class__ = _NormSilu
    return view
