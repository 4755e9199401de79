"""The DragBench samples beside the repository, read without trusting their pickles."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dragnoise.bench.dragbench.unpickled import plain_unpickled

FOLDER = Path(__file__).parents[3] / "shared" / "dragbench"


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample of DragBench.

    Attributes:
        folder: Where its files are.
        prompt: What the picture shows.
        points: (x, y) in image pixels, handle and target in turn.
        mask: uint8 [height, width], 1 where editable.
    """

    folder: Path
    prompt: str
    points: list[list[int]]
    mask: npt.NDArray[np.uint8]

    @property
    def image(self) -> Path:
        return self.folder / "original_image.png"

    @classmethod
    def of(cls, folder: Path) -> "Sample":
        return cls(folder, **plain_unpickled((folder / "meta_data.pkl").read_bytes()))


def names() -> list[str]:
    """Return `category/sample` of every sample, in order; none if the folder is absent."""
    return sorted(str(path.parent.relative_to(FOLDER)) for path in FOLDER.glob("*/*/meta_data.pkl"))
