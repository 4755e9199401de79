"""A session at a moment: a picture, its source, and the drag between them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from ..cache.structure import nbytes
from ..config import Settings
from ..diffusion.lora.adapter import AdapterUse
from ..inputs.image import Image
from ..pipelines.source import Source

__all__ = ["LastDrag", "SessionState", "State", "held_bytes"]


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

    def pictures(self) -> Iterator[Image]:
        """Yield every picture that it keeps."""
        yield self.image
        yield self.source.image
        if self.source.generated is not None:
            yield self.source.generated.image

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor that it keeps, also those that other states keep too."""
        for inversion in self.source.inversions.values():
            yield from inversion
        if self.source.generated is not None:
            yield from self.source.generated.trajectory
        if self.drag is not None:
            drag = self.drag
            yield from (*drag.inversion, drag.begun, drag.variable, drag.placed, drag.now)


def held_bytes(states: Iterable[State]) -> int:
    """Return the bytes that states keep together: what several keep counts once.

    These are pictures, sources, inversions and optima: all that `Session.save` writes of them.
    """
    kept = list(states)
    pixels = {id(image): image.pixels for state in kept for image in state.pictures()}
    tensors = tuple(tensor for state in kept for tensor in state.tensors())
    return sum(array.nbytes for array in pixels.values()) + nbytes(tensors)


@dataclass(frozen=True, eq=False)
class SessionState:
    """Everything that a session is made of.

    Attributes:
        states: Oldest first.
        at: The index of the one that is seen.
        config: Settings of drags that bring none.
        undo_bytes: Bytes that all states may keep together; the last one is kept in any case.
        use: The adapter that is merged into the weights while the session works.
    """

    states: tuple[State, ...]
    at: int
    config: Settings
    undo_bytes: int
    use: AdapterUse
