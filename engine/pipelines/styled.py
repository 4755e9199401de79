"""A picture that a generator made, with the style vectors that it was made of."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..cache.digest import digest
from ..gan.frame import StyleFrame
from ..gan.model import GeneratorModel
from ..inputs.image import Image

__all__ = ["StyledPicture", "own_key", "styled_picture"]


@dataclass(frozen=True, eq=False)
class StyledPicture:
    """A picture that a generator made; DragGAN drags it without searching for it.

    Attributes:
        image: The picture.
        rows: Its style vectors w+, float32 [1, rows, w].
        seed: Of its random vector.
        truncation: How far its style vector lies from the mean one, 0..1.
        generator: The generator's digest: what its style vectors hold for.
    """

    image: Image
    rows: Tensor
    seed: int
    truncation: float
    generator: str

    @property
    def inversions(self) -> Mapping[str, tuple[Tensor, ...]]:
        """What a source knows of it."""
        return {own_key(self.generator): (self.rows,)}


def own_key(generator: str) -> str:
    """Return the key under which a source knows the style vectors that it was made of."""
    return digest("the style vectors of a generator's own picture", generator)


@torch.no_grad()
def styled_picture(model: GeneratorModel, seed: int, truncation: float) -> StyledPicture:
    """Return the picture of a seed; truncation 1 is as varied as the generator, 0 its mean."""
    draws = torch.Generator().manual_seed(seed)
    z = torch.randn(1, model.architecture.z, generator=draws, dtype=torch.float32).to(model.device)
    rows = model.network.rows(z, truncation).clone()
    size = model.architecture.size
    image = StyleFrame((size, size), (size, size)).image_of(model.synthesis.picture(rows))
    return StyledPicture(image, rows, seed, truncation, model.digest)
