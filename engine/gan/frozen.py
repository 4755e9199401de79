"""Make one picture after the other with weights that never change, as an optimisation does.

What depends on the weights alone is computed once: kernels with their resampling, energies of
demodulation. Layers whose style vector does not change either have that folded in too. The values
are those of `Synthesis` but for rounding.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..cache.structure import storable
from .generator import Generator
from .layers import StyledConvolution, activated, convolved, demodulation, enlarged

__all__ = ["FixedLayer", "FrozenSynthesis"]


@storable
@dataclass(frozen=True, eq=False)
class FixedLayer:
    """A layer with its style folded in: an ordinary convolution.

    Attributes:
        kernel: [O, C, 3, 3]; [C, O, 3, 3] where it enlarges.
        bias: [O].
        noise: What is added beside, [1, 1, H, W]; None for nothing.
        enlarges: Whether the picture is enlarged twofold.
    """

    kernel: Tensor
    bias: Tensor
    noise: Tensor | None
    enlarges: bool

    def __call__(self, value: Tensor) -> Tensor:
        result = convolved(value, self.kernel, self.bias, self.enlarges)
        return activated(result if self.noise is None else result + self.noise)


class _Layer:
    """A layer whose style changes, with everything else computed."""

    def __init__(self, layer: StyledConvolution) -> None:
        self.style = layer.style
        weight = layer.weight * layer.gain
        kernel = weight.transpose(0, 1) if layer.enlarges else weight
        self.kernel = kernel.contiguous(memory_format=torch.channels_last)
        self.energy = weight.square().sum((2, 3)).t().contiguous()
        self.bias = layer.scaled_bias()
        self.noise = layer.scaled_noise()
        self.enlarges = layer.enlarges

    def __call__(self, value: Tensor, row: Tensor) -> Tensor:
        style = self.style(row)
        scale = demodulation(style, self.energy)
        scaled = value * style[:, :, None, None]
        result = convolved(scaled, self.kernel, None, self.enlarges)
        bias = self.bias[None, :, None, None]
        if self.noise is not None:
            bias = bias + self.noise
        return activated(torch.addcmul(bias, result, scale[:, :, None, None]))

    def fixed(self, row: Tensor) -> FixedLayer:
        """Fold a style vector [1, w] in."""
        style = self.style(row)[0]
        scale = demodulation(style[None], self.energy)[0]
        across = style[:, None] * scale if self.enlarges else scale[:, None] * style
        kernel = (self.kernel * across[:, :, None, None]).contiguous(
            memory_format=torch.channels_last
        )
        return FixedLayer(kernel, self.bias, self.noise, self.enlarges)


class FrozenSynthesis:
    """The synthesis network of a frozen generator, for one picture at a time."""

    def __init__(self, generator: Generator) -> None:
        self._network = generator.synthesis
        with torch.no_grad():
            layers: Any = generator.synthesis.layers
            self._layers = [_Layer(layer) for layer in layers]
            start = generator.synthesis.start[None]
            self._start = start.contiguous(memory_format=torch.channels_last)

    @property
    def blocks(self) -> int:
        """How many resolutions there are."""
        return len(self._network.colours)

    @torch.no_grad()
    def fixed(self, rows: Tensor, first: int) -> tuple[FixedLayer, ...]:
        """Fold the style vectors of w+ [1, rows, w] into the layers from `first` on."""
        numbers = range(first, len(self._layers))
        return tuple(self._layers[number].fixed(rows[:, number]) for number in numbers)

    def __call__(
        self, rows: Tensor, rest: Tensor, fixed: tuple[FixedLayer, ...], block: int
    ) -> tuple[Tensor, Tensor]:
        """Compute features with a history, and the picture without one.

        Args:
            rows: The first style vectors of w+, [1, K, w].
            rest: The others, [1, rows - K, w].
            fixed: What `fixed` gave for the layers from K on.
            block: At the end of which resolution the features are taken, from 1 on.

        Returns:
            The features [1, C, h, w]; the picture, float32 [1, 3, size, size], about -1..1.
        """
        every = torch.cat([rows, rest], 1).detach()
        walk = self._walk(rows, fixed)
        values = [next(walk) for _ in range(block)]
        with torch.no_grad():
            picture = self._picture(
                itertools.chain((value.detach() for value in values), walk), every
            )
        return values[-1], picture

    def picture(self, rows: Tensor) -> Tensor:
        """Compute the picture of w+ [1, rows, w], with a history."""
        return self._picture(self._walk(rows, ()), rows)

    def _walk(self, rows: Tensor, fixed: tuple[FixedLayer, ...]) -> Iterator[Tensor]:
        """Yield the features at the end of each resolution."""
        value = self._start
        count = rows.shape[1]
        for index in range(self.blocks):
            for number in range(max(0, 2 * index - 1), 2 * index + 1):
                if number < count:
                    value = self._layers[number](value, rows[:, number])
                else:
                    value = fixed[number - count](value)
            yield value

    def _picture(self, values: Iterable[Tensor], rows: Tensor) -> Tensor:
        """Add up the colours of every resolution."""
        picture = None
        for index, value in enumerate(values):
            added: Tensor = self._network.colours[index](value, rows[:, 2 * index + 1])
            picture = added if picture is None else enlarged(picture) + added
        assert picture is not None
        return picture
