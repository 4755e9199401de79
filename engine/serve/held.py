"""A session as the service holds it: whose turn it is, and what the engine's does not remember."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..inputs.mask import Mask
from ..session.session import Session
from .documents import State
from .refusals import Refusal

if TYPE_CHECKING:
    from .pointer import Pointer
    from .work import Work

__all__ = ["Held"]


class Held:
    """A session with its mask and grip; one thing at a time is done with it.

    Attributes:
        id: Its only key, 32 hexadecimal digits.
        session: The engine's.
        version: Rises with every change of what is seen.
        mask: Where the picture may change; None: everywhere.
        grip: What moves as one piece; None: a disc about each handle.
        warnings: What a person should know of it.
        work: What runs in a thread now.
        pointer: The connection that it is dragged by.
        touched_s: When it was last asked for (time.monotonic).
        unsaved: Whether it has changed since it was last saved.
    """

    def __init__(self, id: str, session: Session, version: int = 1) -> None:
        self.id = id
        self.session = session
        self.version = version
        self.mask: Mask | None = None
        self.grip: Mask | None = None
        self.warnings: tuple[str, ...] = session.source.notices
        self.work: Work[object] | None = None
        self.pointer: Pointer | None = None
        self.touched_s = time.monotonic()
        self.unsaved = True
        self._doing: str | None = None
        self._turn = asyncio.Lock()

    @property
    def is_in_use(self) -> bool:
        """Whether something is done with it, or a connection holds it."""
        return self._doing is not None or self.pointer is not None or self._turn.locked()

    def touch(self) -> None:
        """Note that it is wanted."""
        self.touched_s = time.monotonic()

    def changed(self) -> None:
        """Note that another picture is seen."""
        self.version += 1
        self.unsaved = True

    @asynccontextmanager
    async def used(self, what: str) -> AsyncIterator[None]:
        """Hold it while something is done that nothing else may come between.

        Raises:
            Refusal: Something is: busy.
        """
        async with self._turn:  # saving takes a moment, and is waited for
            if self._doing is not None:
                raise Refusal("busy", f"this session is in the middle of {self._doing}; try later")
            self._doing = what
        try:
            yield
        finally:
            self._doing = None
            self.touch()

    @asynccontextmanager
    async def rested(self) -> AsyncIterator[bool]:
        """Give whether nothing is being done with it; nothing begins while this is open."""
        async with self._turn:
            yield self._doing is None

    def state(self) -> State:
        """Return what is said of it."""
        session = self.session
        image = session.image
        return State(
            id=self.id,
            width=image.width,
            height=image.height,
            prompt=session.prompt,
            negative_prompt=session.negative_prompt,
            version=self.version,
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            mask=self.mask is not None,
            grip=self.grip is not None,
            adapter=session.adapter is not None,
            warnings=list(self.warnings),
        )
