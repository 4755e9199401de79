"""Make pictures: the mapping network, the synthesis network, and both as one generator.

Karras et al. 2020, figure 2 (c) and 7 (a): modulated convolutions, a skip architecture that adds
the colours of every resolution. Layer i reads row i of the style vectors; the colours of
resolution k read row 2k + 1.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from .architecture import SMALLEST, Architecture
from .layers import Colour, Linear, StyledConvolution, enlarged

__all__ = ["Generator", "Mapping", "Synthesis"]

_TINY = 1e-8


class Mapping(nn.Module):
    """Map random vectors to style vectors: normalised, then a few layers with a slow rate."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        widths = [architecture.z, *[architecture.w] * architecture.mapping]
        self.layers = nn.ModuleList(
            Linear(before, after, architecture.mapping_rate, active=True)
            for before, after in pairwise(widths)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Map float32 [N, z] to [N, w]."""
        value = z * torch.rsqrt(z.square().mean(1, keepdim=True) + _TINY)
        for layer in self.layers:
            value = layer(value)
        return value


class Synthesis(nn.Module):
    """Make a picture of the style vectors."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, w = architecture.channels, architecture.w
        self.start = nn.Parameter(torch.randn(channels[0], SMALLEST, SMALLEST, dtype=torch.float32))
        layers, inputs = [], channels[0]
        for index, outputs in enumerate(channels):
            size = SMALLEST << index
            for enlarges in (False,) if index == 0 else (True, False):
                layers.append(
                    StyledConvolution(
                        inputs, outputs, w, size, enlarges=enlarges, noise=architecture.noise
                    )
                )
                inputs = outputs
        self.layers = nn.ModuleList(layers)
        self.colours = nn.ModuleList(Colour(count, w) for count in channels)

    def forward(
        self, rows: Tensor, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, list[Tensor]]:
        """Compute the picture and what it was made of.

        Args:
            rows: w+, float32 [N, rows, w].
            dtype: What the convolutions compute in.

        Returns:
            The picture, float32 [N, 3, size, size], about -1..1; and the features at the end of
            each resolution, from 4 x 4 on.
        """
        value = self.start.to(dtype).expand(len(rows), -1, -1, -1)
        value = value.contiguous(memory_format=torch.channels_last)
        features = list[Tensor]()
        picture = None
        for index, colour in enumerate(self.colours):
            for layer in range(max(0, 2 * index - 1), 2 * index + 1):
                value = self.layers[layer](value, rows[:, layer])
            features.append(value)
            added = colour(value, rows[:, 2 * index + 1])
            picture = added if picture is None else enlarged(picture) + added
        assert picture is not None
        return picture, features


class Generator(nn.Module):
    """The two networks, and the mean style vector that truncation draws towards.

    Attributes:
        mean: float32 [w].
    """

    mean: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.mapping = Mapping(architecture)
        self.synthesis = Synthesis(architecture)
        self.register_buffer("mean", torch.zeros(architecture.w, dtype=torch.float32))

    def rows(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Map random vectors [N, z] to w+ [N, rows, w], drawn towards the mean by truncation."""
        w = torch.lerp(self.mean, self.mapping(z), truncation)
        return w[:, None].expand(-1, self.architecture.rows, -1)

    def forward(self, rows: Tensor) -> Tensor:
        """Make the pictures of w+, float32 [N, 3, size, size]."""
        picture: Tensor = self.synthesis(rows)[0]
        return picture
