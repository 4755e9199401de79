"""Counts of executed work, and their arithmetic."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

__all__ = ["Counts", "Kernel"]


class Kernel(NamedTuple):
    """What one launch does: FLOPs, bytes read and written, and the type it computes in."""

    flops: int
    bytes: int
    dtype: torch.dtype


@dataclass
class Counts:
    """What was executed. Sums but for the last two: the most bytes alive at any time, and those alive at the end.

    operators: dispatched, views included. weight_gradients: operators that computed the gradient of a weight.
    kernels: how many launches did what. reads: how many operators read the weight of that name, or what was made of it.
    """

    flops: int = 0
    weight_bytes: int = 0
    activation_bytes_read: int = 0
    activation_bytes_written: int = 0
    operators: int = 0
    launches: int = 0
    synchronisations: int = 0
    weight_gradients: int = 0
    kernels: Counter[Kernel] = field(default_factory=Counter)
    reads: Counter[str] = field(default_factory=Counter)
    peak_bytes: int = 0
    live_bytes: int = 0

    def __add__(self, later: "Counts") -> "Counts":
        """This, then `later`."""
        sums = {name: getattr(self, name) + getattr(later, name) for name in _SUMS}
        return Counts(
            **sums, peak_bytes=max(self.peak_bytes, later.peak_bytes), live_bytes=later.live_bytes
        )

    def times(self, count: int) -> "Counts":
        """This, `count` times over."""
        sums: dict[str, Any] = {}
        for name in _SUMS:
            mine = getattr(self, name)
            many = isinstance(mine, Counter)
            sums[name] = (
                Counter({key: value * count for key, value in mine.items()})
                if many
                else mine * count
            )
        return Counts(**sums, peak_bytes=self.peak_bytes, live_bytes=self.live_bytes)

    def differences(self, other: "Counts") -> list[str]:
        """The names of the sums that are not the same."""
        return [name for name in _SUMS if getattr(self, name) != getattr(other, name)]

    def numbers(self) -> dict[str, int]:
        """Every count that is one number."""
        named = ((entry.name, getattr(self, entry.name)) for entry in dataclasses.fields(self))
        return {name: value for name, value in named if isinstance(value, int)}


_SUMS = [
    entry.name
    for entry in dataclasses.fields(Counts)
    if entry.name not in ("peak_bytes", "live_bytes")
]
