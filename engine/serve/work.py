"""Long work on a session: admitted or refused at once, watched, cancelled, never left behind.

A work runs in a thread and holds its session until that thread is done with it, whoever waits: a
client that goes away cancels it, and the next one finds the session free, as it was.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Generic, TypeVar

from ..errors import CancelledError
from .held import Held
from .refusals import Refusal, of_error
from .threads import Threads

__all__ = ["Queue", "Work"]

T = TypeVar("T", covariant=True)

_AGAIN_S = 0.02
"""Seconds between two attempts to cancel: a job that has not begun yet cannot be told."""


class Queue:
    """What waits and runs, bounded: one more is refused at once, not kept waiting.

    Attributes:
        is_draining: Whether nothing new is taken, because the service ends.
    """

    def __init__(self, most: int) -> None:
        self.is_draining = False
        self._most = most
        self._works: set[Work[object]] = set()
        self._took_s = 1.0

    def __len__(self) -> int:
        return len(self._works)

    def check_room(self) -> None:
        """Raise Refusal where no more is taken."""
        if self.is_draining:
            raise Refusal("draining", "the service is ending; try again", retry_s=5)
        if len(self._works) >= self._most:
            retry_s = min(60, max(1, math.ceil(self._took_s)))
            raise Refusal(
                "busy",
                f"{len(self._works)} drags wait already; try again in {retry_s} s",
                status=429,
                retry_s=retry_s,
            )

    def began(self, work: "Work[object]") -> None:
        """Count a work in."""
        self._works.add(work)

    def ended(self, work: "Work[object]", took_s: float) -> None:
        """Count it out."""
        self._works.discard(work)
        self._took_s += 0.3 * (took_s - self._took_s)

    async def drain(self, within_s: float) -> None:
        """Take nothing new; let what runs end, and cancel what does not within this time."""
        self.is_draining = True
        until_s = time.monotonic() + within_s
        while self._works and time.monotonic() < until_s:
            await asyncio.sleep(_AGAIN_S)
        for work in list(self._works):
            work.cancel(Refusal("draining", "the service is ending; try again", retry_s=5))
        while self._works and time.monotonic() < until_s + 4:
            await asyncio.sleep(_AGAIN_S)


class Work(Generic[T]):
    """A call in a thread that holds its session.

    Args:
        queue: That it is counted in.
        threads: That it runs in.
        held: Its session.
        holding: What is let go when it has ended.
        call: The work.
    """

    def __init__(
        self,
        queue: Queue,
        threads: Threads,
        held: Held,
        holding: AsyncExitStack,
        call: Callable[[], T],
    ) -> None:
        self._queue = queue
        self._held = held
        self._holding = holding
        self._reason: Refusal | None = None
        self._since_s = time.monotonic()
        queue.began(self)
        held.work = self
        self._future = threads.long(call)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    @classmethod
    async def begin(
        cls, queue: Queue, threads: Threads, held: Held, what: str, call: Callable[[], T]
    ) -> "Work[T]":
        """Begin a work on a session that is free, where there is room.

        Raises:
            Refusal: The session is in use, or too much waits.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(held.used(what))
            queue.check_room()
            return cls(queue, threads, held, stack.pop_all(), call)

    def cancel(self, reason: Refusal) -> None:
        """Cancel it; who waits for it is told the reason."""
        if self._reason is None:
            self._reason = reason

    def has_ended(self) -> bool:
        """Whether its thread is done with it."""
        return self._task.done()

    async def result(self) -> T:
        """Wait for it and return its result. Raises Refusal."""
        return await asyncio.shield(self._task)

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended, and return whether it has."""
        done, _ = await asyncio.wait({self._task}, timeout=timeout_s)
        return bool(done)

    async def _run(self) -> T:
        try:
            while not self._future.done():
                if self._reason is not None:
                    self._held.session.cancel()
                await asyncio.wait({self._future}, timeout=_AGAIN_S)
            return self._future.result()
        except CancelledError as cancelled:
            raise self._reason or of_error(cancelled) from None
        finally:
            self._held.work = None
            self._queue.ended(self, time.monotonic() - self._since_s)
            await self._holding.aclose()
