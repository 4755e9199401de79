"""Cut a list of jobs into shards that any scheduler can run beside each other."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from dragnoise.engine.errors import ConfigError

__all__ = ["WHOLE", "Shard"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """A share of a list of jobs; all shards together are the list.

    Attributes:
        index: Which one, from 1.
        count: Of how many.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raise ConfigError unless this is one of its count."""
        if not 1 <= self.index <= self.count:
            raise ConfigError(
                f"there is no shard {self.index}/{self.count}; write 1/{max(self.count, 1)} to "
                f"{max(self.count, 1)}/{max(self.count, 1)}"
            )

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the shard that a text like "2/4" names: the second of four."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found is None:
            raise ConfigError(f"{text!r} is no shard; write 2/4 for the second of four")
        return cls(int(found[1]), int(found[2]))

    def take(self, names: Sequence[T]) -> list[T]:
        """Return every count-th of the names, so that all shards take about as long."""
        return list(names[self.index - 1 :: self.count])


WHOLE = Shard(1, 1)
