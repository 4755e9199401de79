"""Say how large a generator is: its resolutions, channels and widths. No network stands here."""

from dataclasses import dataclass
from typing import Any, Self

from ..config import Settings
from ..errors import ModelError

__all__ = ["SMALLEST", "Architecture"]

SMALLEST = 4
"""The side of the first resolution, pixels."""


@dataclass(frozen=True)
class Architecture(Settings):
    """Hold what a generator's weights must fit.

    Attributes:
        channels: Channels at each resolution, from 4 x 4 on; the side doubles at each, 2 to 9.
        z: Width of the first random vector, 1 to 4096.
        w: Width of a style vector, 1 to 4096.
        mapping: Layers of the mapping network, 1 to 16.
        mapping_rate: What the mapping network's learning rate is multiplied by, above 0, at most 1.
        noise: Whether each layer adds a fixed picture of noise.

    Raises:
        ConfigError: Naming the value and its range.
    """

    channels: tuple[int, ...]
    z: int = 512
    w: int = 512
    mapping: int = 8
    mapping_rate: float = 0.01
    noise: bool = True

    def __post_init__(self) -> None:
        given: object = self.channels
        if not isinstance(given, (tuple, list)):
            raise ModelError(f"channels must be a list of whole numbers, got {given!r}")
        object.__setattr__(self, "channels", tuple(self.channels))
        if not 2 <= len(self.channels) <= 9 or not all(
            type(count) is int and 1 <= count <= 4096 for count in self.channels
        ):
            raise ModelError(
                f"channels must be 2 to 9 whole numbers from 1 to 4096, got {self.channels!r}"
            )
        self._check_whole("z", 1, 4096)
        self._check_whole("w", 1, 4096)
        self._check_whole("mapping", 1, 16)
        self._check_real("mapping_rate", "above 0 and at most 1", lambda value: 0 < value <= 1)
        self._check_flag("noise")

    @property
    def size(self) -> int:
        """Side of the picture, pixels."""
        return SMALLEST << (len(self.channels) - 1)

    @property
    def rows(self) -> int:
        """Style vectors of a picture: its w+ is [rows, w]."""
        return 2 * len(self.channels)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Return the architecture that `to_dict` wrote.

        Raises:
            ModelError: If a name is missing or unknown.
        """
        known = set(cls.__dataclass_fields__)
        if set(stored) != known:
            wrong = ", ".join(sorted(set(stored) ^ known))
            raise ModelError(f"a generator's architecture has other names than these: {wrong}")
        return cls(**stored)
