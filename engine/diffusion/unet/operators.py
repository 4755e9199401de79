"""What layers are computed with: convolution, linear map, group normalisation and attention over frozen weights, chosen as a row of data.

A backend replaces an entry by a faster one that takes the same weights and gives the same numbers but for rounding. Weights never get a gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.group_norm_silu import group_norm_silu

__all__ = ["Conv", "Convolution", "FusedNorm", "Layer", "Linear", "Norm", "Operators", "sdpa"]

Layer = Callable[[Tensor], Tensor]


class Convolution(Protocol):
    """[B, C, H, W] -> [B, O, H', W']; `bias` [O] stands in for the layer's own where it is given."""

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Conv:
    """weight [O, C, k, k], bias [O] or None."""

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    padding: int = 0

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(
            hidden, self.weight, self.bias if bias is None else bias, self.stride, self.padding
        )


@dataclass(frozen=True, eq=False)
class Linear:
    """[..., C] -> [..., O]: weight [O, C], bias [O] or None."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Norm:
    """Group normalisation of [B, C, H, W] in `groups` groups, followed by SiLU where `silu`: weight and bias [C]."""

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float
    silu: bool

    def __call__(self, hidden: Tensor) -> Tensor:
        normed = F.group_norm(hidden, self.groups, self.weight, self.bias, self.eps)
        return F.silu(normed) if self.silu else normed


class FusedNorm(Norm):
    """The same in one kernel of ours, in any memory order, and differentiable in the map alone."""

    def __call__(self, hidden: Tensor) -> Tensor:
        return group_norm_silu(hidden, self.groups, self.weight, self.bias, self.eps, self.silu)


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [B, L, heads, d] on [B, M, heads, d]: [B, L, heads, d], by PyTorch's own choice of kernel."""
    query, key, value = (given.transpose(1, 2) for given in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


@dataclass(frozen=True)
class Operators:
    """memory_format: how maps [B, C, H, W] lie in memory between layers."""

    memory_format: torch.memory_format = torch.contiguous_format
    conv: Callable[[Tensor, Tensor | None, int, int], Convolution] = Conv
    linear: Callable[[Tensor, Tensor | None], Layer] = Linear
    norm: Callable[[Tensor, Tensor, int, float, bool], Layer] = Norm
    attention: Callable[[Tensor, Tensor, Tensor], Tensor] = sdpa
