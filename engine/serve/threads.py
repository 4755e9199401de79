"""Threads for what blocks: the event loop itself never waits for a picture or for the device."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["Threads"]

T = TypeVar("T")


class Threads:
    """Pools of threads, so that what is quick does not wait for what is long.

    Args:
        long: How many long calls there may be at a time.
    """

    def __init__(self, long: int) -> None:
        self._quick = ThreadPoolExecutor(4, "dragnoise-quick")
        self._pictures = ThreadPoolExecutor(2, "dragnoise-pictures")
        self._long = ThreadPoolExecutor(long, "dragnoise-long")

    async def quick(self, call: Callable[[], T]) -> T:
        """Call what takes milliseconds: a move, a frame's encoding."""
        return await asyncio.get_running_loop().run_in_executor(self._quick, call)

    async def picture(self, call: Callable[[], T]) -> T:
        """Call what reads or writes a whole picture or file: two at a time, for their memory."""
        return await asyncio.get_running_loop().run_in_executor(self._pictures, call)

    def long(self, call: Callable[[], T]) -> "asyncio.Future[T]":
        """Call what waits for the device."""
        return asyncio.get_running_loop().run_in_executor(self._long, call)

    def close(self) -> None:
        """Let the threads end as soon as they have nothing to do."""
        for pool in (self._quick, self._pictures, self._long):
            pool.shutdown(wait=False, cancel_futures=True)
