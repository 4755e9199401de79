"""What is to be sent on a connection, in order; of what is overtaken only the newest."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..session.live import LiveFrame
from .refusals import Refusal

__all__ = ["Outbox", "Unsent"]


@dataclass(frozen=True, eq=False)
class Unsent:
    """A frame that waits to be encoded and sent.

    Attributes:
        frame: The engine's.
        seq: The client's number of the move that it answers.
        arrived_s: When that came (time.perf_counter).
        format: Of the file that is sent.
        quality: Of that file.
    """

    frame: LiveFrame
    seq: int
    arrived_s: float
    format: str
    quality: int


_Kind: TypeAlias = Literal["frame", "progress", ""]

_MOST = 256
"""Messages that wait for a client that does not read, before it is taken for gone."""


class Outbox:
    """The messages of one connection. Used in the event loop alone."""

    def __init__(self) -> None:
        self.dropped = 0
        self._items: list[tuple[_Kind, Mapping[str, Any] | Unsent]] = []
        self._came = asyncio.Event()

    def text(self, type: str, **about: Any) -> None:
        """Put a message; of progress only the newest waits. Raises Refusal: too many wait."""
        kind: _Kind = "progress" if type == "progress" else ""
        self._put(kind, {"type": type, **about})

    def error(self, refusal: Refusal) -> None:
        """Put what is said of an error."""
        self.text("error", code=refusal.code, message=refusal.message)

    def frame(self, unsent: Unsent) -> None:
        """Put a frame instead of one that still waits."""
        self._put("frame", unsent)

    async def next(self) -> Mapping[str, Any] | Unsent:
        """Wait for the next message and take it."""
        while not self._items:
            self._came.clear()
            await self._came.wait()
        return self._items.pop(0)[1]

    def take_rest(self) -> list[Mapping[str, Any]]:
        """Take the texts that wait."""
        texts = [item for _, item in self._items if isinstance(item, Mapping)]
        self._items.clear()
        return texts

    def _put(self, kind: _Kind, item: Mapping[str, Any] | Unsent) -> None:
        if kind:
            before = len(self._items)
            self._items = [entry for entry in self._items if entry[0] != kind]
            self.dropped += kind == "frame" and len(self._items) < before
        if len(self._items) >= _MOST:
            raise Refusal("busy", f"{_MOST} messages wait to be read; connect again")
        self._items.append((kind, item))
        self._came.set()
