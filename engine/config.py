"""The settings of an edit, checked once."""

import dataclasses
import json
import math
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .errors import ConfigError, InputWarning

__all__ = ["DragConfig", "PersonaliseConfig"]


@dataclass(frozen=True)
class _Settings:
    """What all settings have in common: checked once, changed by making others."""

    def _whole(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(f"{name} must be a whole number from {low} to {high}, got {value!r}")

    def _real(self, name: str, allowed: str, holds: Any) -> None:
        value = getattr(self, name)
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
            or not holds(value)
        ):
            raise ConfigError(f"{name} must be a number {allowed}, got {value!r}")

    def replace(self, **changes: Any) -> Self:
        """The same settings with some changed; None changes nothing. Raises ConfigError for a name that is not a setting."""
        unknown = changes.keys() - {field.name for field in dataclasses.fields(self)}
        if unknown:
            raise ConfigError(
                f"{', '.join(sorted(unknown))}: no such setting; known: {', '.join(f.name for f in dataclasses.fields(self))}"
            )
        return dataclasses.replace(
            self, **{name: value for name, value in changes.items() if value is not None}
        )

    def but(self, **changes: Any) -> Self:
        """Call `replace`, its new name."""
        warnings.warn("but() is now called replace()", DeprecationWarning, stacklevel=2)
        return self.replace(**changes)


@dataclass(frozen=True)
class DragConfig(_Settings):
    """How to drag. The defaults are DragNoise's benchmark settings; a model may bring its own (`Editor.defaults`).

    steps: DDIM steps of the whole schedule, 1 to 1000. The drag happens at step `steps - round(strength * steps)`.
    strength: share of the schedule that is inverted and denoised again, above 0, at most 1.
    iterations: most iterations of the optimisation, 0 or more; 0 gives the reconstruction.
    lr: Adam's learning rate, above 0.
    lam: weight of the mask term (lambda), 0 or more.
    end_step: the last so many steps of the schedule denoise with the bottleneck they compute themselves, 0 to `steps`.
    r_m: radius of the motion patch, in supervision pixels (half image pixels), 0 to 32.
    r_p: radius of the tracking window, likewise.
    guidance: how far every pass is drawn away from the negative prompt, 1 to 50 (classifier-free guidance; it doubles the work). 1: not at all.
    parity: keep the published code's meaning where ours differs: no mask holds the whole picture in place; a size that is not a multiple of the
        model's factor is not padded but resized at the end; `end_step` counts from 50 whatever `steps` is; bytes are truncated, not rounded.

    Raises ConfigError, naming the value and its range.
    """

    steps: int = 50
    strength: float = 0.7
    iterations: int = 80
    lr: float = 0.02
    lam: float = 0.2
    end_step: int = 0
    r_m: int = 1
    r_p: int = 3
    guidance: float = 1.0
    parity: bool = False

    def __post_init__(self) -> None:
        self._whole("steps", 1, 1000)
        self._whole("iterations", 0, 100_000)
        self._whole("end_step", 0, self.steps)
        self._whole("r_m", 0, 32)
        self._whole("r_p", 0, 32)
        self._real("strength", "above 0 and at most 1", lambda value: 0 < value <= 1)
        self._real("lr", "above 0", lambda value: value > 0)
        self._real("lam", "0 or more", lambda value: value >= 0)
        self._real("guidance", "from 1 to 50", lambda value: 1 <= value <= 50)
        if self.active_steps < 1:
            raise ConfigError(
                f"strength {self.strength} of {self.steps} steps is less than one step; raise either"
            )

    @property
    def active_steps(self) -> int:
        """Steps that are inverted and denoised: `round(strength * steps)`."""
        return round(self.strength * self.steps)

    @property
    def injected_steps(self) -> int:
        """The optimised bottleneck is used in step i of the whole schedule while i is less than this."""
        return (50 if self.parity else self.steps) - self.end_step

    def negative(self, prompt: str) -> str | None:
        """The negative prompt as the network is told it: None without guidance, which has no use for one and warns of it (InputWarning)."""
        if self.guidance > 1:
            return prompt
        if prompt:
            warnings.warn(
                "a negative prompt does nothing without guidance; set guidance above 1",
                InputWarning,
                stacklevel=3,
            )
        return None

    @classmethod
    def from_card(cls, path: str | os.PathLike[str]) -> Self:
        """The settings that a model's folder brings in its `drag.json`: a JSON object of settings. Raises ConfigError if it is malformed."""
        try:
            card = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as malformed:
            raise ConfigError(
                f"{str(path)!r} is not JSON ({malformed}); mend or remove it"
            ) from malformed
        if not isinstance(card, dict):
            raise ConfigError(
                f"{str(path)!r} must hold a JSON object of settings, got {type(card).__name__}"
            )
        return cls().replace(**card)


@dataclass(frozen=True)
class PersonaliseConfig(_Settings):
    """How to learn a picture. The defaults are DragNoise's interface settings.

    The first sentence about a field is also the help of its option on the command line.

    Attributes:
        steps: steps of the training, 1 to 100,000; DragNoise's benchmark takes 200.
        rank: rank of the low-rank matrices, 1 to 1024.
        lr: AdamW's learning rate, above 0.
        batch: noisy versions of the picture a step, 1 to 256.
        seed: seed of the noise, the timesteps and the first matrices, 0 or more.
        plateau: stop early when the loss, smoothed over about 20 steps, has not gone down by
            1 % for so many steps; 0: never.

    Raises:
        ConfigError: a value is out of its range; the message names both.
    """

    steps: int = 60
    rank: int = 16
    lr: float = 5e-4
    batch: int = 4
    seed: int = 0
    plateau: int = 0

    def __post_init__(self) -> None:
        self._whole("steps", 1, 100_000)
        self._whole("rank", 1, 1024)
        self._whole("batch", 1, 256)
        self._whole("seed", 0, 2**31 - 1)
        self._whole("plateau", 0, 100_000)
        self._real("lr", "above 0", lambda value: value > 0)
