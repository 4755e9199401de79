"""The settings of an edit and of a training, checked once."""

import dataclasses
import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from .errors import ConfigError

__all__ = ["DiffusionSettings", "DragConfig", "DragSettings", "PersonaliseConfig", "Settings"]


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
        except ValueError as malformed:
            message = f"{str(path)!r} is not JSON ({malformed}); mend or remove it"
            raise ConfigError(message) from malformed
        if not isinstance(card, dict):
            kind = type(card).__name__
            raise ConfigError(f"{str(path)!r} must hold a JSON object of settings, got {kind}")
        return cls().replace(**card)

    def _check_whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not low <= value <= high:
            raise ConfigError(f"{name} must be a whole number from {low} to {high}, got {value!r}")

    def _check_real(self, name: str, allowed: str, holds: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not math.isfinite(value) or not holds(value):
            raise ConfigError(f"{name} must be a number {allowed}, got {value!r}")


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


@dataclass(frozen=True)
class Inversion(Settings):
    """The settings that the inversion of a picture depends on.

    Attributes:
        steps: DDIM steps of the whole schedule.
        active_steps: Steps that are inverted and denoised again.
        guidance: Scale of classifier-free guidance; 1 is none.
        parity: Whether the picture's sides are left unpadded, as published.
    """

    steps: int
    active_steps: int
    guidance: float
    parity: bool


@dataclass(frozen=True)
class DiffusionSettings(Settings):
    """Settings that all drag methods on a diffusion model have.

    Attributes:
        steps: DDIM steps of the whole schedule, 1 to 1000. The drag happens at step
            `steps - round(strength * steps)`.
        strength: Share of the schedule that is inverted and denoised again, above 0, at most 1.
        iterations: Most iterations of the optimisation, 0 or more; 0 gives the reconstruction.
        lr: Adam's learning rate, above 0.
        lam: Weight of the mask term (lambda), 0 or more.
        guidance: How far every pass is drawn away from the negative prompt, 1 to 50
            (classifier-free guidance; it doubles the work). 1: not at all.
        parity: Keep the published code's meaning where ours differs: no mask holds the whole
            picture in place; a size that is not a multiple of the model's factor is not padded but
            resized at the end; `end_step` counts from 50 whatever `steps` is; bytes are truncated,
            not rounded.

    Raises:
        ConfigError: Naming the value and its range.
    """

    steps: int = 50
    strength: float = 0.7
    iterations: int = 80
    lr: float = 0.02
    lam: float = 0.2
    guidance: float = field(default=1.0, kw_only=True)
    parity: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._check_whole("steps", 1, 1000)
        self._check_whole("iterations", 0, 100_000)
        self._check_real("strength", "above 0 and at most 1", lambda value: 0 < value <= 1)
        self._check_real("lr", "above 0", lambda value: value > 0)
        self._check_real("lam", "0 or more", lambda value: value >= 0)
        self._check_real("guidance", "from 1 to 50", lambda value: 1 <= value <= 50)
        if self.active_steps < 1:
            share = f"strength {self.strength} of {self.steps} steps"
            raise ConfigError(f"{share} is less than one step; raise either")

    @property
    def active_steps(self) -> int:
        """Steps that are inverted and denoised: `round(strength * steps)`."""
        return round(self.strength * self.steps)

    @property
    def preparation(self) -> Inversion:
        """The settings that everything before the first update depends on."""
        return Inversion(self.steps, self.active_steps, self.guidance, self.parity)


@dataclass(frozen=True)
class DragConfig(DiffusionSettings):
    """How to drag with DragNoise. The defaults are its benchmark settings.

    A model may bring its own (`Editor.defaults`).

    Attributes:
        end_step: Number of final denoising steps that use the network's own bottleneck, 0 to
            `steps`.
        r_m: Radius of the motion patch, in supervision pixels (half image pixels), 0 to 32.
        r_p: Radius of the tracking window, in supervision pixels, 0 to 32.
    """

    end_step: int = 0
    r_m: int = 1
    r_p: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole("end_step", 0, self.steps)
        self._check_whole("r_m", 0, 32)
        self._check_whole("r_p", 0, 32)

    @property
    def injected_steps(self) -> int:
        """Steps of the whole schedule, from its start, that use the optimised bottleneck."""
        return (50 if self.parity else self.steps) - self.end_step


@dataclass(frozen=True)
class PersonaliseConfig(Settings):
    """How to learn a picture. The defaults are DragNoise's interface settings.

    Attributes:
        steps: Steps of the optimisation, 1 to 100,000; DragNoise's benchmark takes 200.
        rank: Rank of the low-rank matrices, 1 to 1024.
        lr: AdamW's learning rate, above 0.
        batch: Noisy versions of the picture a step, 1 to 256.
        seed: Seed of the noise, the timesteps and the first matrices.
        plateau: Stop early when the loss, smoothed over about 20 steps, has not gone down by 1 %
            for so many steps; 0: never.

    Raises:
        ConfigError: Naming the value and its range.
    """

    steps: int = 60
    rank: int = 16
    lr: float = 5e-4
    batch: int = 4
    seed: int = 0
    plateau: int = 0

    def __post_init__(self) -> None:
        self._check_whole("steps", 1, 100_000)
        self._check_whole("rank", 1, 1024)
        self._check_whole("batch", 1, 256)
        self._check_whole("seed", 0, 2**31 - 1)
        self._check_whole("plateau", 0, 100_000)
        self._check_real("lr", "above 0", lambda value: value > 0)
