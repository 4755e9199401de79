"""What a session's file consists of, and what each of its values must be.

Files of the same layout are read whatever release wrote them: the code's digest decides only
whether a warning says that drags may differ by rounding. The model's digest must be the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..cache.arrays import Array
from ..cache.structure import storable
from ..system.schema import ANY_TEXT, Each, Fields, Maybe, Plain, Real, Row, Text, Whole

__all__ = [
    "ABOUT",
    "SETTINGS",
    "VALUE",
    "VERSION",
    "SavedSource",
    "SavedState",
    "drag_rule",
    "trajectory_rule",
]

VERSION = 2
"""Number of this layout; raise it when anything of it changes."""


@storable
@dataclass(frozen=True, eq=False)
class SavedSource:
    """A source in a file.

    Attributes:
        pixels: uint8 [H, W, 3].
        inversions: (key, tensors) each.
        trajectory: Of a generated picture, with its seed and its settings as JSON; else None.
    """

    pixels: Tensor
    prompt: str
    negative_prompt: str
    inversions: tuple[tuple[str, tuple[Tensor, ...]], ...]
    trajectory: tuple[Tensor, ...] | None
    seed: int
    settings: str


@storable
@dataclass(frozen=True, eq=False)
class SavedState:
    """A state in a file.

    Attributes:
        source: The number of its source.
        pixels: uint8 [H, W, 3].
        key: Of its drag's preparation; "" without a drag.
        tensors: begun, variable, placed and now of the drag.
    """

    source: int
    pixels: Tensor
    key: str
    tensors: tuple[Tensor, ...]


_PIXELS = Array((torch.uint8,), (None, None, 3))
_MATRIX = Array((torch.float32, torch.float64, torch.float16, torch.bfloat16), (None, None))
_OF_A_DRAG = Array((torch.float32, torch.int64))
_INVERSION = Each(Array(), least=1)

SETTINGS = Fields({"kind": Text(longest=100), "values": Plain(depth=4)})
"""Of a drag, in a text of JSON."""

ABOUT = Fields(
    {
        "model": ANY_TEXT,
        "environment": ANY_TEXT,
        "at": Whole(),
        "config": Text(longest=10_000),
        "undo_bytes": Whole(),
        "adapter_scale": Real(),
    }
)
_SOURCE = Fields(
    {
        "pixels": _PIXELS,
        "prompt": ANY_TEXT,
        "negative_prompt": ANY_TEXT,
        "inversions": Each(Row((ANY_TEXT, _INVERSION))),
        "trajectory": Maybe(_INVERSION),
        "seed": Whole(0, 2**63 - 1),
        "settings": Text(longest=10_000),
    },
    SavedSource,
)
_STATE = Fields(
    {"source": Whole(), "pixels": _PIXELS, "key": ANY_TEXT, "tensors": Each(_OF_A_DRAG, most=4)},
    SavedState,
)
VALUE = Row(
    (
        Each(_SOURCE, least=1),
        Each(_STATE, least=1),
        Maybe(Each(Row((ANY_TEXT, _MATRIX, _MATRIX)))),
    )
)


def drag_rule(most: int) -> Row:
    """Return the rule of a drag's tensors, whose handles lie in a map of that many cells a side."""
    cells = Array((torch.int64,), (None, 2), low=0, high=most)
    return Row((Array(), Array(), cells, cells))


def trajectory_rule(count: int, shape: tuple[int, ...]) -> Each:
    """Return the rule of that many latents of a shape."""
    return Each(Array(shape=shape), least=count, most=count)
