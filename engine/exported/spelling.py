"""Spell a network's sums so that an exported graph stays exact and general in any runtime.

PyTorch's kernels take statistics, scales and sums in float32 inside, whatever their inputs are; a
graph has to say so.
"""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn

from ..diffusion.unet import Operators
from ..diffusion.unet.operators import Conv, Norm
from ..diffusion.weights import frozen_view

__all__ = ["SPELLED", "exported_vae"]


class _Conv(Conv):
    """A convolution that adds a step's bias, because a graph's takes constants only."""

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        if bias is None:
            return super().__call__(hidden)
        plain = F.conv2d(hidden, self.weight, None, self.stride, self.padding)
        return plain + bias[None, :, None, None]


class _Norm(Norm):
    """A normalisation with statistics in float32."""

    def __call__(self, hidden: Tensor) -> Tensor:
        normed = _normed(hidden, self.groups, self.weight, self.bias, self.eps)
        return (F.silu(normed) if self.silu else normed).to(hidden.dtype)


def _normed(hidden: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.group_norm(hidden.float(), groups, weight.float(), bias.float(), eps)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention with the scale applied in float32.

    As a half-precision constant it would be up to 0.4 % off, for all queries alike.
    """
    scaled = (query.float() * query.shape[-1] ** -0.5).to(query.dtype)
    query, key, value = (tensor.transpose(1, 2) for tensor in (scaled, key, value))
    return ((query @ key.transpose(2, 3)).softmax(dim=-1) @ value).transpose(1, 2)


SPELLED = Operators(
    memory_format=torch.contiguous_format, conv=_Conv.of, norm=_Norm, attention=_attend
)
"""What the layers of an exported U-Net are computed with."""


class _GroupNorm(nn.GroupNorm):
    def forward(self, hidden: Tensor) -> Tensor:
        return _normed(hidden, self.num_groups, self.weight, self.bias, self.eps).to(hidden.dtype)


class _Attention:
    """A processor of diffusers': the VAE's single attention layer, over the places of a map."""

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
        attended = attention.to_out[0](_attend(query, key, value).flatten(2))
        change = attended.transpose(1, 2).reshape(hidden.shape)
        output: Tensor = (change + hidden) / attention.rescale_output_factor
        return output


def exported_vae(vae: AutoencoderKL) -> AutoencoderKL:
    """Return a VAE on the same memory that is spelled in the same way."""
    view = frozen_view(vae)
    for module in view.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = _GroupNorm
        if hasattr(module, "set_processor"):
            module.set_processor(_Attention())
    return view
