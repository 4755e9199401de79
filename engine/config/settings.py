"""A set of settings, and what the drag's loop reads of every method's."""

import dataclasses
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from ..errors import ConfigError
from .checks import flag, real, shown, whole

__all__ = ["DragSettings", "Settings"]


@dataclass(frozen=True)
class Settings:
    """A set of settings: checked when it is made, changed by making another."""

    def replace(self, **changes: Any) -> Self:
        """Return the same settings with some changed; None changes nothing.

        Raises:
            ConfigError: For a name that is not a setting, or a value out of its range.
        """
        names = [entry.name for entry in dataclasses.fields(self)]
        unknown = sorted(changes.keys() - set(names))
        if unknown:
            known = ", ".join(names)
            raise ConfigError(f"{', '.join(unknown)}: no such setting; known: {known}")
        real = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, **real)

    def but(self, **changes: Any) -> Self:
        """Call `replace`, its new name."""
        warnings.warn("but() is now called replace()", DeprecationWarning, stacklevel=2)
        return self.replace(**changes)

    @classmethod
    def beside(cls, own: "Settings") -> Self:
        """Return the settings of this kind on a model whose own are of another kind."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """Return the settings by name, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_card(cls, path: str | os.PathLike[str]) -> Self:
        """Return the settings in a model's `drag.json`, a JSON object of settings.

        Raises:
            ConfigError: If the file is malformed.
        """
        try:
            card = json.loads(Path(path).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as malformed:
            message = f"{str(path)!r} is not JSON ({malformed}); mend or remove it"
            raise ConfigError(message) from malformed
        if not isinstance(card, dict):
            kind = type(card).__name__
            raise ConfigError(f"{str(path)!r} must hold a JSON object of settings, got {kind}")
        return cls().replace(**card)

    def _check_whole(self, name: str, low: int, high: int) -> None:
        object.__setattr__(self, name, whole(name, getattr(self, name), low, high))

    def _check_real(self, name: str, allowed: str, holds: Callable[[float], bool]) -> None:
        object.__setattr__(self, name, real(name, getattr(self, name), allowed, holds))

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"{name} must be {' or '.join(choices)}, got {shown(value)}")

    def _check_flag(self, name: str) -> None:
        object.__setattr__(self, name, flag(name, getattr(self, name)))


class DragSettings(Protocol):
    """The settings that the drag's loop reads; every method's own settings have them.

    Attributes:
        iterations: Most iterations of the optimisation, 0 or more.
        lr: Adam's learning rate, above 0.
        lam: Weight of the mask term, 0 or more.
        preparation: What everything before the first update depends on. A pipeline's `prepare` is
            given this alone, so no other setting can make a kept preparation wrong.
    """

    @property
    def iterations(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def lam(self) -> float: ...
    @property
    def preparation(self) -> Settings: ...
