"""Leave sums of maps to whoever reads them first.

A residual block and a transformer end in a sum, and what reads it next is nearly always a
normalisation. On CUDA the normalisation adds up while it reads (kernels/group_norm_silu.py), which
saves a launch for every addition, bias and concatenation.
"""

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Adding", "Sum", "added_up"]


class Adding(Protocol):
    """A normalisation that adds up what it reads."""

    def __call__(self, hidden: Tensor) -> Tensor: ...

    def added(
        self, x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the sum, and the sum normed."""
        ...


class Sum:
    """A map [B, C, H, W] that is added up when it is first read.

    Args:
        x: [B, D, H, W].
        change: What is added to it, [B, D, H, W].
        plus: What is added to it without a gradient, [1 or B, D, ...] with one place or all.
        beside: The channels that follow, [B, C - D, H, W].
    """

    def __init__(
        self,
        x: Tensor,
        change: Tensor | None = None,
        plus: Tensor | None = None,
        beside: Tensor | None = None,
    ) -> None:
        self._parts = (x, change, plus, beside)
        self._total = x if change is None and plus is None and beside is None else None

    def value(self) -> Tensor:
        """Return the sum."""
        if self._total is None:
            self._total = added_up(*self._parts)
        return self._total

    def normed(self, norm: Adding) -> Tensor:
        """Return the sum normed; the sum itself is known from then on."""
        if self._total is not None:
            return norm(self._total)
        self._total, normed = norm.added(*self._parts)
        return normed

    def beside(self, others: Tensor) -> "Sum":
        """Return this map followed by other channels."""
        x, change, plus, beside = self._parts
        if self._total is not None or beside is not None:
            return Sum(self.value(), beside=others)
        return Sum(x, change, plus, others)


def added_up(
    x: Tensor, change: Tensor | None, plus: Tensor | None, beside: Tensor | None
) -> Tensor:
    """Return a sum by PyTorch's operators, rounded after each."""
    for more in (plus, change):
        x = x if more is None else x + more
    return x if beside is None else torch.cat([x, beside], dim=1)
