"""What layers are computed with where a graph is exported: the same sums, spelled so that they stay exact and general in any runtime.

PyTorch's kernels take statistics, scales and sums in float32 inside, whatever they are given; a graph has to say so.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..diffusion.unet import Operators
from ..diffusion.unet.operators import Conv, Norm
from ..diffusion.weights import frozen_view

__all__ = ["EXPORTED", "exported_vae"]


class _Conv(Conv):
    """A step's own bias is added, because a graph's convolution takes constants only."""

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is None:
            return super().__call__(hidden)
        return (
            F.conv2d(hidden, self.weight, None, self.stride, self.padding)
            + bias[None, :, None, None]
        )


class _Norm(Norm):
    """Statistics in float32."""

    def __call__(self, hidden: Tensor) -> Tensor:
        normed = _normed(hidden, self.groups, self.weight, self.bias, self.eps)
        return (F.silu(normed) if self.silu else normed).to(hidden.dtype)


def _normed(hidden: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.group_norm(hidden.float(), groups, weight.float(), bias.float(), eps)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The scale is applied in float32: as a half-precision constant it would be up to 0.4 % off, for all queries alike."""
    scaled = (query.float() * query.shape[-1] ** -0.5).to(query.dtype)
    query, key, value = (given.transpose(1, 2) for given in (scaled, key, value))
    return ((query @ key.transpose(2, 3)).softmax(dim=-1) @ value).transpose(1, 2)


EXPORTED = Operators(
    memory_format=torch.contiguous_format, conv=_Conv, norm=_Norm, attention=_attend
)


class _GroupNorm(nn.GroupNorm):
    def forward(self, hidden: Tensor) -> Tensor:
        return _normed(hidden, self.num_groups, self.weight, self.bias, self.eps).to(hidden.dtype)


class _Attention:
    """The VAE's single attention layer, over the places of a map: a processor of diffusers'."""

    def __call__(
        self,
        attention: Any,
        hidden: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        tokens = attention.group_norm(hidden.flatten(2)).transpose(1, 2)
        query, key, value = (
            project(tokens).unflatten(2, (attention.heads, -1))
            for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        found = (
            attention.to_out[0](_attend(query, key, value).flatten(2))
            .transpose(1, 2)
            .reshape(hidden.shape)
        )
        output: Tensor = (found + hidden) / attention.rescale_output_factor
        return output


def exported_vae(vae: AutoencoderKL) -> AutoencoderKL:
    """A VAE on the same memory, computed in the same way."""
    view = frozen_view(vae)
    for module in view.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = _GroupNorm
        if hasattr(module, "set_processor"):
            module.set_processor(_Attention())
    return view
