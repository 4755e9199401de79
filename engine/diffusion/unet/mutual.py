"""Let a pass read the keys and values of another pass's self-attentions: mutual self-attention.

What a picture looks like stands in the keys and values of its self-attentions; where it stands, in
the queries. A denoising that reads those of the unedited picture's own denoising keeps the
picture's textures while its shapes move (Cao et al., MasaCtrl, ICCV 2023). DragDiffusion does so in
the last layers of every step, and runs both pictures side by side; here the unedited picture's keys
and values are shown once and read by every drag.

Layers are numbered in the order in which they run: in Stable Diffusion 1.x there are 16, 0 to 5 in
the encoder half, 6 in the middle block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from torch import Tensor

__all__ = ["MutualAttention", "Shown"]

Shown: TypeAlias = tuple[Tensor, ...]
"""Keys, values, keys, values, ... [B, L, C] of the last self-attentions of one pass, in order."""


class MutualAttention:
    """The keys and values that a network's self-attentions show to, or read from, another pass.

    Attributes:
        layers: How many self-attentions the network has.
    """

    def __init__(self) -> None:
        self.layers = 0
        self._first = 0
        self._shown: list[Tensor] | None = None
        self._read: Iterator[Tensor] | None = None

    def add(self) -> int:
        """Return the number of one more self-attention."""
        self.layers += 1
        return self.layers - 1

    @contextmanager
    def showing(self, first: int) -> Iterator[list[Tensor]]:
        """Let the layers from `first` on that run meanwhile add keys and values to a list."""
        self._first = first
        self._shown = []
        try:
            yield self._shown
        finally:
            self._shown = None

    @contextmanager
    def reading(self, shown: Sequence[Tensor]) -> Iterator[None]:
        """Let the last layers that run meanwhile read what a pass has shown."""
        self._first = self.layers - len(shown) // 2
        self._read = iter(shown)
        try:
            yield
        finally:
            self._read = None

    def read(self, number: int) -> tuple[Tensor, Tensor] | None:
        """Return the keys and values that a layer reads; None for its own."""
        if self._read is None or number < self._first:
            return None
        return next(self._read), next(self._read)

    def show(self, number: int, key: Tensor, value: Tensor) -> None:
        """Add a layer's keys and values [B, L, C] to what is shown, if anything is."""
        if self._shown is not None and number >= self._first:
            self._shown += (key.contiguous(), value.contiguous())
