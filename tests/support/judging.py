"""A judge of pictures that knows no network: distances are told by chance alone."""

from collections.abc import Sequence
from typing import Any

import torch

from dragnoise.bench.dragbench.asked import Asked
from dragnoise.bench.dragbench.samples import Sample
from dragnoise.engine import Image


class ByChance:
    """Finds a point as far from its target as the stream of random numbers says, from 0 to 1 px."""

    def __init__(self, asked: Asked) -> None:
        self.device = torch.device("cpu")

    def distances(
        self, sample: Sample, pictures: Sequence[Image], generator: torch.Generator
    ) -> list[list[float]]:
        state = generator.get_state()
        found = []
        for _ in pictures:
            generator.set_state(state)
            found.append(torch.rand(len(sample.points), generator=generator).tolist())
        return found

    def scores(
        self, sample: Sample, pictures: Sequence[Image], generator: torch.Generator
    ) -> list[dict[str, Any]]:
        distances = self.distances(sample, pictures, generator)
        return [
            {"distances_px": own, "outside_db": float(picture.pixels.mean())}
            for own, picture in zip(distances, pictures, strict=True)
        ]
