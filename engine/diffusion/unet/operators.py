"""Compute layers over frozen weights: convolution, linear map, normalisation, attention, gate.

Which code computes them is a row of data. A backend replaces an entry by a faster one that takes
the same weights and returns the same numbers but for rounding. Weights never get a gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from dragnoise.kernels.group_norm_silu import added_group_norm_silu, group_norm_silu
from dragnoise.kernels.layer_norm import added_layer_norm, layer_norm

from .held import ConvWeight
from .sums import added_up

__all__ = [
    "Biased",
    "Conv",
    "FusedNorm",
    "FusedTokenNorm",
    "Layer",
    "Linear",
    "Norm",
    "Operators",
    "TokenNorm",
    "gated",
    "in_a_row",
    "sdpa",
]

Layer = Callable[[Tensor], Tensor]


class Biased(Protocol):
    """A convolution [B, C, H, W] -> [B, O, H', W'], or a linear map [..., C] -> [..., O]."""

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        """Run the layer; `bias` [O] stands in for its own where there is one."""
        ...


@dataclass(frozen=True, eq=False)
class Conv:
    """A convolution by PyTorch.

    Attributes:
        weight: [O, C, k, k].
        bias: [O] or None.
        stride: In both directions.
        padding: On every side.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    padding: int = 0

    @classmethod
    def of(cls, weight: ConvWeight, bias: Tensor | None, stride: int, padding: int) -> Self:
        return cls(weight.plain(), bias, stride, padding)

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(
            hidden, self.weight, self.bias if bias is None else bias, self.stride, self.padding
        )


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear map [..., C] -> [..., O] by PyTorch.

    Attributes:
        weight: [O, C].
        bias: [O] or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.linear(hidden, self.weight, self.bias if bias is None else bias)


@dataclass(frozen=True, eq=False)
class Norm:
    """A group normalisation of [B, C, H, W] by PyTorch.

    Attributes:
        weight: [C].
        bias: [C].
        groups: How many.
        eps: Added to the variance.
        silu: Whether SiLU follows.
    """

    weight: Tensor
    bias: Tensor
    groups: int
    eps: float
    silu: bool

    def __call__(self, hidden: Tensor) -> Tensor:
        weight, bias = self.weight.to(hidden.dtype), self.bias.to(hidden.dtype)
        normed = F.group_norm(hidden, self.groups, weight, bias, self.eps)
        return F.silu(normed) if self.silu else normed

    def added(
        self, x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return a sum (sums.py), and the sum normed."""
        total = added_up(x, change, plus, beside)
        return total, self(total)


class FusedNorm(Norm):
    """A `Norm` in a kernel of ours, with the sum, in any memory order; weights get no gradient."""

    def __call__(self, hidden: Tensor) -> Tensor:
        return group_norm_silu(hidden, self.groups, self.weight, self.bias, self.eps, self.silu)

    def added(
        self, x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return a sum (sums.py), and the sum normed."""
        if change is not None and change.dtype != x.dtype:
            return super().added(x, change, plus, beside)
        return added_group_norm_silu(
            x,
            self.groups,
            self.weight,
            self.bias,
            self.eps,
            self.silu,
            change=change,
            plus=plus,
            beside=None if beside is None else beside.to(x.dtype),
        )


@dataclass(frozen=True, eq=False)
class TokenNorm:
    """A layer normalisation of tokens [..., C] by PyTorch, in their own precision.

    Attributes:
        weight: [C].
        bias: [C].
        eps: Added to the variance.
    """

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, tokens: Tensor) -> Tensor:
        weight, bias = self.weight.to(tokens.dtype), self.bias.to(tokens.dtype)
        return F.layer_norm(tokens, weight.shape, weight, bias, self.eps)

    def added(self, change: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of both, and the sum normed."""
        total = change + tokens
        return total, self(total)


class FusedTokenNorm(TokenNorm):
    """A `TokenNorm` in one kernel of ours with the addition, differentiable in the tokens alone."""

    def __call__(self, tokens: Tensor) -> Tensor:
        return layer_norm(tokens, self.weight, self.bias, self.eps)

    def added(self, change: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of both, and the sum normed."""
        if change.dtype != tokens.dtype:
            return super().added(change, tokens)
        return added_layer_norm(change, tokens, self.weight, self.bias, self.eps)


def gated(both: Tensor) -> Tensor:
    """Return tokens [..., C] times their gate, by PyTorch, from both [..., 2 C] (GEGLU)."""
    hidden, gate = both.chunk(2, dim=-1)
    return hidden * F.gelu(gate)


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Compute attention by PyTorch's own choice of kernel.

    Args:
        query: [B, L, heads, d].
        key: [B, M, heads, d].
        value: [B, M, heads, d].

    Returns:
        [B, L, heads, d].
    """
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def in_a_row(weights: Sequence[Tensor]) -> Tensor | None:
    """Return weights [O, C] as one [O + O + ..., C] on their memory; None where it does not do."""
    first = weights[0]
    step = first.numel() * first.element_size()
    for number, weight in enumerate(weights):
        apart = weight.data_ptr() - first.data_ptr()
        alike = weight.shape == first.shape and weight.dtype == first.dtype
        one = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not (alike and one and weight.is_contiguous() and apart == number * step):
            return None
    rows, columns = first.shape
    return first.detach().as_strided((len(weights) * rows, columns), (columns, 1))


@dataclass(frozen=True)
class Operators:
    """A row of what layers are computed with.

    Attributes:
        memory_format: How maps [B, C, H, W] lie in memory between layers.
        conv: (weight, bias [O], stride, padding) -> a convolution.
        linear: (weight [O, C], bias [O]) -> a linear map.
        norm: (weight [C], bias [C], groups, eps, silu) -> a group normalisation.
        token_norm: (weight [C], bias [C], eps) -> a layer normalisation.
        gated: Tokens and their gate [..., 2 C] -> [..., C].
        attention: Query, key, value [B, L, heads, d] -> [B, L, heads, d].
        once: As `conv`, for a layer that runs once a drag: what it prepares is not kept.
        joint: Whether sums are joined: projections whose weights lie in a row in memory are one
            product, and biases of a residual block are added by the normalisation behind them.
        part: A view of some of a convolution's weights -> how `conv` reads them: a copy that lies
            as whole weights do, unless the layer copies them itself.
    """

    memory_format: torch.memory_format = torch.contiguous_format
    conv: Callable[[ConvWeight, Tensor | None, int, int], Biased] = Conv.of
    linear: Callable[[Tensor, Tensor | None], Biased] = Linear
    norm: Callable[[Tensor, Tensor, int, float, bool], Norm] = Norm
    token_norm: Callable[[Tensor, Tensor, float], TokenNorm] = TokenNorm
    gated: Layer = gated
    attention: Callable[[Tensor, Tensor, Tensor], Tensor] = sdpa
    once: Callable[[ConvWeight, Tensor | None, int, int], Biased] = Conv.of
    joint: bool = False
    part: Callable[[Tensor], Tensor] = Tensor.contiguous
