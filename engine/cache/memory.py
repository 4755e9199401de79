"""A tier in memory: bounded in bytes; the least recently used entry goes, a held one never."""

from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import Cache, LRUCache

__all__ = ["Tier"]

V = TypeVar("V")


class Tier(LRUCache[str, V], Generic[V]):
    """Entries by name, at most `limit` bytes together.

    An entry that does not fit beside the held ones is not kept.
    """

    def __init__(
        self,
        limit: int,
        size: Callable[[V], int],
        is_held: Callable[[str], bool],
        on_evict: Callable[[str, V], None],
    ) -> None:
        """Make an empty tier.

        Args:
            limit: The most bytes of all entries.
            size: Returns the bytes of an entry, at least 1.
            is_held: Whether the entry of that name must stay.
            on_evict: Called with the name and the value of every evicted entry.
        """
        super().__init__(limit, getsizeof=size)
        self._is_held = is_held
        self._on_evict = on_evict
        self.evictions = 0

    def keep(self, name: str, value: V) -> bool:
        """Keep an entry; return whether there is room for it."""
        size = self.getsizeof(value)
        if self.currsize + size > self.maxsize and self._held_bytes() + size > self.maxsize:
            return False
        self[name] = value
        return True

    def _held_bytes(self) -> int:
        held = (name for name in self if self._is_held(name))
        return sum(int(self.getsizeof(Cache.__getitem__(self, name))) for name in held)

    def popitem(self) -> tuple[str, V]:
        """Remove and return the least recently used entry that is not held."""
        held = []
        try:
            while True:
                name, value = super().popitem()
                if not self._is_held(name):
                    break
                held.append((name, value))
        finally:
            for held_name, held_value in held:
                super().__setitem__(held_name, held_value)
        self.evictions += 1
        self._on_evict(name, value)
        return name, value
