"""What a drag brings along, in memory that stays where it is.

A captured graph reads addresses, so one drag can replay another's only where its numbers lie in the
same place. Every picture has a place and a start of its own, and with a method that aims every
drag; here they are copied into those of the first.
"""

import dataclasses
from typing import Any

from torch import Tensor

from ..cache.structure import flatten, kinds_of, rebuild
from .method import Start

__all__ = ["Buffers"]


class Buffers:
    """A place and a start that others like them can be written into.

    Args:
        place: What can be stored of it is the drag's own (tensors, numbers, what consists of them);
            what else it holds is shared by all of its like.
        start: A storable value, constants and variable.

    Attributes:
        place: As given, its own tensors in the buffers.
        start: As given, in the buffers; what its tensors share they share here.
    """

    def __init__(self, place: Any, start: Start[Any]) -> None:
        named = {field.name: getattr(place, field.name) for field in dataclasses.fields(place)}
        self._own = tuple(name for name, value in named.items() if _is_stored(value))
        self._shared = tuple(name for name in named if name not in self._own)
        self._layout, spans = self._apart(place, start)
        self._spans = [span.clone() for span in spans]
        own, self.start = rebuild(self._layout, self._spans, kinds_of())
        self.place = dataclasses.replace(place, **dict(zip(self._own, own, strict=True)))

    def fit(self, place: Any, start: Start[Any]) -> bool:
        """Whether these differ from the buffers in numbers alone."""
        return (
            type(place) is type(self.place)
            and all(getattr(place, name) == getattr(self.place, name) for name in self._shared)
            and self._apart(place, start)[0] == self._layout
        )

    def write(self, place: Any, start: Start[Any]) -> None:
        """Write a place and a start that fit."""
        for buffer, span in zip(self._spans, self._apart(place, start)[1], strict=True):
            buffer.copy_(span)

    def _apart(self, place: Any, start: Start[Any]) -> tuple[Any, list[Tensor]]:
        """Return how what is own to both lies in memory, and the memory."""
        return flatten((tuple(getattr(place, name) for name in self._own), start), kinds_of())


def _is_stored(value: Any) -> bool:
    try:
        flatten(value, kinds_of())
    except TypeError:
        return False
    return True
