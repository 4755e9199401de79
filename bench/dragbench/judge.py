"""What a judge of pictures is, and whose scores a sample's result holds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from dragnoise.engine.inputs.image import Image

from .samples import Sample

if TYPE_CHECKING:
    import torch

__all__ = ["EDITED", "UNEDITED", "Judge"]

EDITED = "edited"
UNEDITED = "unedited"
"""Whose scores a result holds; the second is the zero line: the picture as it was."""


class Judge(Protocol):
    """Judges pictures by the measures that it has."""

    @property
    def device(self) -> "torch.device":
        """Where its random numbers are drawn."""

    def distances(
        self, sample: Sample, pictures: Sequence[Image], generator: "torch.Generator"
    ) -> list[list[float]]:
        """Return how far each pair's point is found from its target, in pixels, as in `scores`."""

    def scores(
        self, sample: Sample, pictures: Sequence[Image], generator: "torch.Generator"
    ) -> list[dict[str, Any]]:
        """Return the scores of each picture, ready for JSON.

        Args:
            sample: What was edited.
            pictures: What became of it; each is judged with the same random numbers.
            generator: Where they come from; afterwards it stands where it would after one picture.
        """
