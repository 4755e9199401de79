"""The samples that ship with a model: pictures, and what to drag on them."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..inputs.points import Points

__all__ = ["Sample", "samples"]


@dataclass(frozen=True)
class Sample:
    """A picture and what to drag on it.

    Attributes:
        image: the picture's file.
        points: handles and targets, in image pixels.
        prompt: what the picture shows.
        mask: white where the picture may change; None: everywhere.
    """

    image: Path
    points: Points
    prompt: str
    mask: Path | None

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.image.stem


def samples(folder: Path | None = None) -> tuple[Sample, ...]:
    """Return the samples that a folder's `samples.json` lists; None: the embedded model's."""
    if folder is None:
        from .load import EMBEDDED

        folder = EMBEDDED / "samples"
    rows = json.loads((folder / "samples.json").read_text(encoding="utf-8"))
    return tuple(
        Sample(
            image=folder / row["image"],
            points=Points.of(row["drags"]),
            prompt=row["prompt"],
            mask=None if row["mask"] is None else folder / row["mask"],
        )
        for row in rows
    )
