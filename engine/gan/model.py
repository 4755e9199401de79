"""Hold a loaded generator: the network, frozen, and what belongs to it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..cache.digest import digest
from ..config import DragGANConfig
from .architecture import Architecture
from .frozen import FixedLayer, FrozenSynthesis
from .generator import Generator

__all__ = ["GeneratorModel", "StylePlace"]


@dataclass(frozen=True, eq=False)
class GeneratorModel:
    """A loaded generator.

    Attributes:
        name: Where it came from, for messages and results.
        network: Its networks, frozen, float32.
        device: Where they lie.
        defaults: The drag settings that it brings (`drag.json`), else ours.
    """

    name: str
    network: Generator
    device: torch.device
    defaults: DragGANConfig = field(default_factory=DragGANConfig)

    @property
    def architecture(self) -> Architecture:
        return self.network.architecture

    @cached_property
    def digest(self) -> str:
        """Digest of what it computes. The first call reads all weights."""
        settings: dict[str, Any] = self.architecture.to_dict()
        return digest(dict(self.network.state_dict()), settings)

    @cached_property
    def synthesis(self) -> FrozenSynthesis:
        """The synthesis network for one picture at a time."""
        return FrozenSynthesis(self.network)


@dataclass(frozen=True, eq=False)
class StylePlace:
    """A picture as style vectors, shared by all drags on it.

    Attributes:
        model: The generator.
        rows: w+, float32 [1, rows, w].
        count: How many of the rows are optimised, from the first on.
        fixed: The layers of the others.
    """

    model: GeneratorModel
    rows: Tensor
    count: int
    fixed: tuple[FixedLayer, ...]

    @cached_property
    def digest(self) -> str:
        """Digest of the generator and the picture."""
        return digest(self.model.digest, self.rows, self.count)

    @classmethod
    def at(cls, model: GeneratorModel, rows: Tensor, count: int) -> "StylePlace":
        """Return the place of a picture."""
        return cls(model, rows, count, model.synthesis.fixed(rows, count))

    def look(self, first: Tensor, block: int) -> tuple[Tensor, Tensor]:
        """Compute features and picture with other first rows, [1, count, w].

        Returns:
            The features at the end of a resolution (from 1 on) [1, C, h, w], and the picture,
            float32 [1, 3, size, size].
        """
        return self.model.synthesis(first, self.rows[:, self.count :], self.fixed, block)
