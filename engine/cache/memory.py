"""A tier in memory: bounded in bytes, the least recently used out, what is held never."""

from collections.abc import Callable
from typing import Any

from cachetools import Cache, LRUCache

__all__ = ["Tier"]


class Tier(LRUCache[str, Any]):
    """limit: bytes; an entry that is larger, or for which only held ones could make room, is not kept. evicted: told of what goes."""

    def __init__(
        self,
        limit: int,
        size: Callable[[Any], int],
        held: Callable[[str], bool],
        evicted: Callable[[str, Any], None],
    ) -> None:
        super().__init__(limit, getsizeof=size)
        self._is_held, self._evicted = held, evicted
        self.evictions = 0

    def keep(self, name: str, value: Any) -> bool:
        """Whether there was room."""
        if (
            self.currsize + self.getsizeof(value) > self.maxsize
            and self._held_bytes() + self.getsizeof(value) > self.maxsize
        ):
            return False
        self[name] = value
        return True

    def _held_bytes(self) -> int:
        return sum(
            int(self.getsizeof(Cache.__getitem__(self, name)))
            for name in self
            if self._is_held(name)
        )

    def popitem(self) -> tuple[str, Any]:
        held = []
        try:
            while True:
                name, value = super().popitem()
                if not self._is_held(name):
                    break
                held.append((name, value))
        finally:
            for kept in held:
                super().__setitem__(*kept)
        self.evictions += 1
        self._evicted(name, value)
        return name, value
