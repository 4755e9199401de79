"""A session at a moment: a picture, its source, and the drag between them."""

from dataclasses import dataclass

from torch import Tensor

from ..config import Settings
from ..diffusion.lora.adapter import AdapterUse
from ..inputs.image import Image
from ..pipelines.source import Source

__all__ = ["LastDrag", "SessionState", "State"]


@dataclass(frozen=True, eq=False)
class LastDrag:
    """The things that a drag leaves for the next.

    Attributes:
        key: What its preparation depends on beside the source (`preparation_key`).
        inversion: What inverting the source gave, float32 tensors.
        begun: The variable before the drag's first update, float32.
        variable: The variable where the drag ended, float32.
        placed: Where its handles were placed, int64 [N, 2], (row, column) in the supervision map.
        now: Where tracking left them, likewise.
    """

    key: str
    inversion: tuple[Tensor, ...]
    begun: Tensor
    variable: Tensor
    placed: Tensor
    now: Tensor


@dataclass(frozen=True, eq=False)
class State:
    """A picture to be seen, of what source, and the drag that made it.

    Attributes:
        source: The picture that drags begin with.
        image: The picture that is seen.
        drag: What made it of the source; None: it is the source.
    """

    source: Source
    image: Image
    drag: LastDrag | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that this state alone keeps."""
        own = 0 if self.drag is None else self.drag.begun.nbytes + self.drag.variable.nbytes
        return self.image.pixels.nbytes + own


@dataclass(frozen=True, eq=False)
class SessionState:
    """Everything that a session is made of.

    Attributes:
        states: Oldest first.
        at: The index of the one that is seen.
        config: Settings of drags that bring none.
        undo_bytes: Bytes that are kept to undo.
        use: The adapter that is merged into the weights while the session works.
    """

    states: tuple[State, ...]
    at: int
    config: Settings
    undo_bytes: int
    use: AdapterUse
