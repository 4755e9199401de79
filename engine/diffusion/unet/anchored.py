"""Compute layers by their change from a pass that is known, where a network's rounding is coarse.

A drag compares passes that hardly differ: its first update changes the decoder half's maps by 1 %,
and bfloat16 rounds every map, in every layer, by up to 0.4 %. The roundings of two passes do not
cancel, so the difference of their predictions, which the mask term adds up over all that must stay,
was half rounding. (Measured on a golden case: rounding in any one level of the decoder half alone
makes an error of 0.2 to 1 of the difference itself, so there is no last layer to mend.) Hence, with
the anchor x_0, y_0 = W x_0 + b of a pass at the drag's start,

    y = y_0 + W (x - x_0)

and all between the products in float32. W reads and returns the change alone, so what is rounded is
0.4 % of the change. Products are as many as before and in low precision as before; at x_0 the
anchor comes back bit for bit.

Networks in float32 are computed as they are, and so are those in float16, which rounds eight times
finer: the same golden case's first mask term is 0.9 % too large there, in bfloat16 93 %.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from .held import ConvWeight
from .operators import Biased, Operators

__all__ = ["Anchor", "Anchors"]

Anchor: TypeAlias = tuple[Tensor, Tensor]
"""What a layer read and returned in the known pass, in the network's precision."""

_COARSE = 2e-3
"""The distance of 1 to the next number above which passes are compared by anchors."""


class Anchors:
    """The known pass of a network, which its layers read in the order in which they run.

    Args:
        dtype: The network's precision.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._recorded: list[Anchor] | None = None
        self._replayed: Iterator[Anchor] | None = None

    @property
    def wanted(self) -> bool:
        """Whether the precision is so coarse that changes are lost in its rounding."""
        return torch.finfo(self._dtype).eps > _COARSE

    @property
    def between(self) -> torch.dtype:
        """The dtype of maps between the layers now."""
        idle = self._recorded is None and self._replayed is None
        return self._dtype if idle else torch.float32

    @contextmanager
    def recording(self) -> Iterator[list[Anchor]]:
        """Let the layers that run meanwhile add their anchors to a list."""
        self._recorded = []
        try:
            yield self._recorded
        finally:
            self._recorded = None

    @contextmanager
    def replaying(self, anchors: tuple[Anchor, ...]) -> Iterator[None]:
        """Let the layers that run meanwhile begin at their anchors; without any, as they are."""
        self._replayed = iter(anchors) if anchors else None
        try:
            yield
        finally:
            self._replayed = None

    def operators(self, plain: Operators) -> Operators:
        """Return operators whose convolutions and linear maps know their anchors, if wanted."""
        if not self.wanted:
            return plain

        def conv(weight: ConvWeight, bias: Tensor | None, stride: int, padding: int) -> Biased:
            return _Anchored(plain.conv(weight, bias, stride, padding), _zeros(weight.held), self)

        def linear(weight: Tensor, bias: Tensor | None) -> Biased:
            return _Anchored(plain.linear(weight, bias), _zeros(weight), self)

        return replace(plain, conv=conv, linear=linear)

    def run(self, hidden: Tensor, layer: Callable[[Tensor], Tensor]) -> Anchor | None:
        """Return a layer's anchor, new or known; None where it is to run as it is."""
        if self._recorded is not None:
            before = hidden.to(self._dtype)
            anchor = (before, layer(before))
            self._recorded.append(anchor)
            return anchor
        return None if self._replayed is None else next(self._replayed)


@dataclass(frozen=True, eq=False)
class _Anchored:
    """A convolution or a linear map that begins at its anchor.

    Attributes:
        plain: The layer.
        no_bias: Zeros [O]: a change has no bias.
        anchors: Where the layer's own is.
    """

    plain: Biased
    no_bias: Tensor
    anchors: Anchors

    def __call__(self, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        anchor = self.anchors.run(hidden, lambda before: self.plain(before, bias))
        if anchor is None:
            return self.plain(hidden, bias)
        before, after = anchor
        change = self.plain((hidden - before).to(before.dtype), self.no_bias)
        return after.float() + change


def _zeros(weight: Tensor) -> Tensor:
    return torch.zeros(weight.shape[0], dtype=weight.dtype, device=weight.device)
