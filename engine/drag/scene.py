"""The scene of a drag: everything that it is given and never changes."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor

from ..config import DragSettings

__all__ = ["Scene"]

P = TypeVar("P", covariant=True)
Q = TypeVar("Q", bound=DragSettings, covariant=True)


@dataclass(frozen=True, eq=False)
class Scene(Generic[P, Q]):
    """A drag on a place: points and mask as the optimisation sees them.

    Attributes:
        place: What all drags on one image share; its type is the method's pipeline's own.
        handles: int64 [N, 2], (row, column) in the supervision map, on the model's device.
        targets: int64 [N, 2], likewise.
        resolution: (rows, columns) of the supervision map.
        keep: float32 [1, 1, h, w], 1 where the picture must stay; None where nothing must (the
            mask term is then exactly zero).
        settings: The method's own.
        wants_output: Whether the network's output is wanted at every iteration (for previews and
            records), not only where the mask term needs it.
        ways: float32 [N, 2], from handles to targets, as they were given and not rounded, in cells
            of the supervision map; None: between the rounded ones.
        grip: bool [h, w], what goes with the handles in it as one piece; None: a disc about each.
        shown: What the unedited picture's own denoising shows to the edited one's, for methods
            whose settings ask for it; None before the drag has ended.
    """

    place: P
    handles: Tensor
    targets: Tensor
    resolution: tuple[int, int]
    keep: Tensor | None
    settings: Q
    wants_output: bool = False
    ways: Tensor | None = None
    grip: Tensor | None = None
    shown: Any = None

    @property
    def needs_output(self) -> bool:
        """Whether a forward pass goes on to the network's output."""
        return self.wants_output or self.keep is not None
