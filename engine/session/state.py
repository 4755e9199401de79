"""What a session is at a moment: a picture, its source, and the drag between them."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..inputs.image import Image
from ..pipelines.source import Source

__all__ = ["LastDrag", "State"]


@dataclass(frozen=True, eq=False)
class LastDrag:
    """What a drag leaves for the next: what it depends on, the variable where it began and where it ended, where its handles were placed and
    are now [N, 2]."""

    key: tuple[Any, ...]
    begun: Tensor
    variable: Tensor
    placed: Tensor
    now: Tensor


@dataclass(frozen=True, eq=False)
class State:
    """What there is to see, of what source, and the drag that made it (None: it is the source)."""

    source: Source
    image: Image
    dragged: LastDrag | None = None

    @property
    def nbytes(self) -> int:
        mine = (
            0 if self.dragged is None else self.dragged.begun.nbytes + self.dragged.variable.nbytes
        )
        return self.image.pixels.nbytes + mine
