"""Count executed work: sums of what operators did, and their arithmetic."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

__all__ = ["Counts", "Kernel"]


class Kernel(NamedTuple):
    """A launch.

    Attributes:
        flops: What it computes.
        bytes: What it reads and writes.
        dtype: The type that it computes in.
    """

    flops: int
    bytes: int
    dtype: torch.dtype


@dataclass
class Counts:
    """Counts of executed work.

    Attributes:
        flops: One multiply-add is two.
        weight_bytes: Bytes of weights read.
        activation_bytes_read: Other bytes read.
        activation_bytes_written: Bytes written.
        operators: Operators dispatched, views included.
        launches: Operators that read or write memory.
        synchronisations: How often the host waited for the device.
        weight_gradients: Operators that computed the gradient of a weight.
        kernels: How many launches did what.
        reads: How many operators read the weight of a name, or what was made of it.
        peak_bytes: The most bytes alive at any time.
        live_bytes: The bytes alive at the end.
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
        """Return the counts of this work, then `later`."""
        sums = {name: getattr(self, name) + getattr(later, name) for name in _SUMS}
        peak = max(self.peak_bytes, later.peak_bytes)
        return Counts(**sums, peak_bytes=peak, live_bytes=later.live_bytes)

    def times(self, count: int) -> "Counts":
        """Return the counts of this work `count` times over."""
        sums: dict[str, Any] = {}
        for name in _SUMS:
            amount = getattr(self, name)
            if isinstance(amount, Counter):
                sums[name] = Counter({key: value * count for key, value in amount.items()})
            else:
                sums[name] = amount * count
        return Counts(**sums, peak_bytes=self.peak_bytes, live_bytes=self.live_bytes)

    def differences(self, other: "Counts") -> list[str]:
        """Return the names of the sums that differ."""
        return [name for name in _SUMS if getattr(self, name) != getattr(other, name)]

    def numbers(self) -> dict[str, int]:
        """Return every count that is one number."""
        named = ((entry.name, getattr(self, entry.name)) for entry in dataclasses.fields(self))
        return {name: value for name, value in named if isinstance(value, int)}


_SUMS = [
    entry.name
    for entry in dataclasses.fields(Counts)
    if entry.name not in ("peak_bytes", "live_bytes")
]
