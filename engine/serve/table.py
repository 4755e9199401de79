"""The table of sessions: who holds an id holds the session, and nobody can guess one."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator

from ..editor import Editor
from ..errors import DragnoiseError
from ..session.session import Session
from .held import Held
from .kept import Folder
from .log import log, short
from .refusals import Refusal
from .settings import ServeSettings
from .threads import Threads

__all__ = ["Table"]

_EVICT_S = 60.0
"""Seconds without use after which a session makes room for a new one where the table is full."""


class Table:
    """The sessions in memory, and those in the folder, which come back when they are asked for."""

    def __init__(
        self, editor: Editor, settings: ServeSettings, threads: Threads, folder: Folder | None
    ) -> None:
        self._editor = editor
        self._settings = settings
        self._threads = threads
        self._folder = folder
        self._held: dict[str, Held] = {}

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)

    async def add(self, opened: Callable[[str], Session]) -> Held:
        """Open a session in a thread, and hold it under a new id.

        Args:
            opened: Opens it for a tenant: every session is one.

        Raises:
            Refusal: There is no room for another.
        """
        await self._make_room()
        id = secrets.token_hex(16)
        held = Held(id, await self._threads.picture(lambda: opened(id)))
        self._held[held.id] = held
        return held

    async def get(self, id: str) -> Held:
        """Return a session, restored where it was kept.

        Raises:
            Refusal: There is none: not_found.
        """
        held = self._held.get(id) or await self._restored(id)
        if held is None:
            raise Refusal("not_found", "there is no such session; open another")
        held.touch()
        return held

    async def remove(self, held: Held) -> None:
        """Forget a session everywhere."""
        self._held.pop(held.id, None)
        if held.work is not None:
            held.work.cancel(Refusal("cancelled", "the session was deleted"))
        if held.pointer is not None:
            await held.pointer.give_up(Refusal("not_found", "the session was deleted"), 4404)
        folder = self._folder
        if folder is not None:
            await self._threads.picture(lambda: folder.forget(held.id))

    async def sweep(self) -> None:
        """Save what has changed; drop what nobody has used for long."""
        await self.save()
        for held in self:
            idle_s = time.monotonic() - held.touched_s
            if idle_s > self._settings.idle_s and not held.is_in_use:
                await self._drop(held)
        if self._folder is not None:
            await self._threads.picture(self._folder.forget_old)

    async def save(self) -> None:
        """Save every session that has changed and is at rest, where there is a folder."""
        for held in self:
            if held.unsaved:
                await self._save(held)

    async def _save(self, held: Held) -> bool:
        """Save a session; return whether nothing of it would be lost."""
        folder = self._folder
        if folder is None:
            return True
        async with held.rested() as is_rested:
            if not is_rested:
                return False
            version, held.unsaved = held.version, False
            try:
                await self._threads.picture(lambda: folder.save(held))
            except DragnoiseError as refused:  # a full disk
                held.unsaved = True
                about = {"session": short(held.id), "error": type(refused).__name__}
                log("save_failed", logging.WARNING, **about)
                return False
            if self._held.get(held.id) is not held:  # deleted meanwhile
                await self._threads.picture(lambda: folder.forget(held.id))
            return version == held.version

    async def _drop(self, held: Held) -> bool:
        """Drop a session from memory, unless it would be lost or is in use."""
        if held.unsaved and not await self._save(held):
            return False
        if held.is_in_use or self._held.get(held.id) is not held:
            return False
        del self._held[held.id]
        log("dropped", session=short(held.id))
        return True

    async def _make_room(self) -> None:
        """Drop the session that was not used for longest where the table is full.

        Raises:
            Refusal: All are in use: busy.
        """
        while len(self._held) >= self._settings.sessions:
            idle = [held for held in self if not held.is_in_use]
            oldest = min(idle, key=lambda held: held.touched_s, default=None)
            is_old = oldest is not None and time.monotonic() - oldest.touched_s > _EVICT_S
            if oldest is None or not is_old or not await self._drop(oldest):
                raise Refusal(
                    "busy",
                    f"all {self._settings.sessions} sessions are in use; delete one, or try later",
                    status=429,
                    retry_s=30,
                )

    async def _restored(self, id: str) -> Held | None:
        folder = self._folder
        if folder is None:
            return None
        undo_bytes = self._settings.undo_bytes
        await self._make_room()
        held = await self._threads.picture(lambda: folder.restore(id, self._editor, undo_bytes))
        if held is None:
            return None
        return self._held.setdefault(id, held)  # another request may have been first
