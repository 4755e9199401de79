"""The measures that DragBench's pictures are judged by, loaded once a run."""

from collections.abc import Sequence
from typing import Any

import torch

from dragnoise.engine.inputs.image import Image

from ..fidelity.pixels import psnr
from .asked import Asked
from .judge import Judge
from .samples import Sample

__all__ = ["make_judge"]


def make_judge(asked: Asked) -> Judge:
    """Return a judge by all that the run has been given weights for."""
    return _Measures()


class _Measures:
    """Judges pictures by their pixels."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def scores(
        self, sample: Sample, pictures: Sequence[Image], generator: torch.Generator
    ) -> list[dict[str, Any]]:
        """Return the scores of each picture; see `Judge`."""
        outside = ~sample.mask.editable
        return [
            {"outside_db": psnr(picture.pixels, sample.image.pixels, outside)}
            for picture in pictures
            if outside.any()
        ]
