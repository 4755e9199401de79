"""The settings of an edit and of a training, checked once."""

import dataclasses
import json
import math
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from .errors import ConfigError, ImageError

__all__ = [
    "FITS",
    "LIMITS",
    "DiffusionSettings",
    "DragConfig",
    "DragDiffusionConfig",
    "DragGANConfig",
    "DragSettings",
    "FastConfig",
    "FreeDragConfig",
    "GoodDragConfig",
    "Mutual",
    "PersonaliseConfig",
    "PictureLimits",
    "Settings",
    "StyleInversion",
    "checked_priority",
    "flag",
    "function",
    "of_kind",
    "real",
    "seconds",
    "shown",
    "whole",
]

FITS = ("rigid", "similarity", "affine")
"""How several handles move one piece: they turn it; and scale it; and stretch and shear it."""

F = TypeVar("F")
K = TypeVar("K")


def shown(value: object) -> str:
    """Return what a message shows of a value: its repr, in one line of at most 120 letters."""
    try:
        text = " ".join(repr(value).split())
    except (ValueError, RecursionError):  # a whole number of thousands of digits; a nested list
        text = f"a value of type {type(value).__name__} that is too long to show"
    return text if len(text) <= 120 else f"{text[:117]}..."


def whole(
    name: str, value: Any, low: int, high: int | None = None, allowed: str | None = None
) -> int:
    """Return a whole number of any library's kind (NumPy's, for example) as Python's.

    Args:
        name: What a message calls it.
        value: The number.
        low: The least.
        high: The greatest; None: as large as one likes.
        allowed: The range, in words; None: its numbers.

    Raises:
        ConfigError: Naming the value and its range.
    """
    if isinstance(value, (int, np.integer)) and type(value) is not bool:
        number = int(value)
        if low <= number and (high is None or number <= high):
            return number
    if allowed is None:
        allowed = f"{low} or more" if high is None else f"a whole number from {low} to {high}"
    raise ConfigError(f"{name} must be {allowed}, got {shown(value)}")


def real(name: str, value: Any, allowed: str, holds: Callable[[float], bool]) -> float:
    """Return a finite number of any library's kind as Python's; a whole one stays whole.

    Args:
        name: What a message calls it.
        value: The number.
        allowed: The range, in words.
        holds: Whether a number is in the range.

    Raises:
        ConfigError: Naming the value and its range.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and type(value) is not bool:
        try:
            number = int(value) if isinstance(value, (int, np.integer)) else float(value)
            if math.isfinite(number) and holds(number):
                return number
        except OverflowError:  # no float is as large
            pass
    raise ConfigError(f"{name} must be a number {allowed}, got {shown(value)}")


def flag(name: str, value: object) -> bool:
    """Return True or False, Python's or NumPy's. Raises ConfigError for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ConfigError(f"{name} must be True or False, got {shown(value)}")


def seconds(name: str, value: Any) -> float | None:
    """Return seconds above 0, as large as one likes; None for None. Raises ConfigError."""
    if value is None:
        return None
    number = isinstance(value, (int, float, np.integer, np.floating))
    if not number or not value > 0:
        raise ConfigError(f"{name} must be above 0, got {shown(value)}")
    return float(min(value, sys.float_info.max))


def function(name: str, value: F | None) -> F | None:
    """Return what can be called, or None. Raises ConfigError for anything else."""
    if value is None or callable(value):
        return value
    raise ConfigError(f"{name} must be a function, got {shown(value)}")


def of_kind(name: str, value: Any, kind: type[K]) -> K:
    """Return a thing of this kind. Raises ConfigError for anything else."""
    if isinstance(value, kind):
        return value
    raise ConfigError(f"{name} must be a {kind.__name__}, got {shown(value)}")


def checked_priority(value: Any) -> int:
    """Return a job's priority, of which higher ones run first. Raises ConfigError."""
    return whole("priority", value, -(2**63), 2**63)


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
class Mutual(Settings):
    """The share of a denoising that reads another's keys and values (mutual self-attention).

    Attributes:
        first_step: First denoising step that does, from 0.
        first_layer: First self-attention that does, from 0.
    """

    first_step: int
    first_layer: int


@dataclass(frozen=True)
class DiffusionSettings(Settings):
    """Settings that all drag methods on a diffusion model have.

    Attributes:
        steps: DDIM steps of the whole schedule, 1 to 1000. The drag happens at step
            `steps - round(strength * steps)`.
        strength: Share of the schedule that is inverted and denoised again, above 0, at most 1.
        iterations: Most iterations of the optimisation, 0 or more; 0 gives the reconstruction.
        lr: Adam's learning rate, above 0, at most 100: the variable's own values are about 1.
        lam: Weight of the mask term (lambda), 0 to a million.
        guidance: How far every pass is drawn away from the negative prompt, 1 to 50
            (classifier-free guidance; it doubles the work). 1: not at all.
        parity: Keep the published code's meaning where ours differs: DragNoise without a mask holds
            the whole picture in place; a size that is not a multiple of the model's factor is not
            padded but resized at the end; `end_step` counts from 50 whatever `steps` is; bytes are
            truncated, not rounded.

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
        self._check_real("lr", "above 0 and at most 100", lambda value: 0 < value <= 100)
        self._check_real("lam", "from 0 to 1000000", lambda value: 0 <= value <= 1e6)
        self._check_real("guidance", "from 1 to 50", lambda value: 1 <= value <= 50)
        self._check_flag("parity")
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

    @property
    def holds_without_mask(self) -> bool:
        """Whether a drag without a mask holds the whole picture in place."""
        return False


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

    @property
    def holds_without_mask(self) -> bool:
        """Whether a drag without a mask holds the whole picture in place: so it is published."""
        return self.parity


@dataclass(frozen=True)
class FastConfig(DiffusionSettings):
    """How to drag by a moved latent and a few updates.

    Attributes:
        r_m: Radius of the patch that is compared, in supervision pixels (half image pixels), 0 to
            32.
        r_p: Radius of the window around the target in which a handle is looked for, in supervision
            pixels, 0 to 32.
        grip_px: Radius around a handle that goes its whole way, where no grip is given, in image
            pixels, 0 to 1000.
        fit: How several handles move one piece, a grip or discs that touch: "rigid" turns it,
            "similarity" scales it too, "affine" stretches and shears it.
        lam: Above 0: what the mask leaves out stays. It is put back, and not weighed.
    """

    steps: int = 10
    iterations: int = 10
    r_m: int = 3
    r_p: int = 3
    grip_px: float = 16.0
    fit: str = "similarity"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole("r_m", 0, 32)
        self._check_whole("r_p", 0, 32)
        self._check_real("grip_px", "from 0 to 1000", lambda value: 0 <= value <= 1000)
        self._check_choice("fit", FITS)

    @classmethod
    def beside(cls, own: Settings) -> Self:
        """Return the settings with the learning rate that a model's own bottleneck wants."""
        return cls(lr=own.lr) if isinstance(own, DragConfig) else cls()


@dataclass(frozen=True)
class _LatentSettings(DiffusionSettings):
    """The settings of methods that optimise the noisy latent and denoise by mutual attention.

    Attributes:
        start_step: First denoising step, from 0, whose self-attentions read the unedited picture's
            keys and values.
        start_layer: First self-attention, from 0, that does; Stable Diffusion has 16.
    """

    start_step: int = 0
    start_layer: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole("start_step", 0, 1000)
        self._check_whole("start_layer", 0, 1000)

    @property
    def mutual(self) -> Mutual:
        """The share of the unedited picture's denoising that the edited one reads."""
        return Mutual(self.start_step, self.start_layer)


@dataclass(frozen=True)
class DragDiffusionConfig(_LatentSettings):
    """How to drag with DragDiffusion. The defaults are its published ones.

    Attributes:
        r_m: Radius of the motion patch, in supervision pixels (half image pixels), 0 to 32.
        r_p: Radius of the tracking window, in supervision pixels, 0 to 32.
    """

    lr: float = 0.01
    lam: float = 0.1
    r_m: int = 1
    r_p: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole("r_m", 0, 32)
        self._check_whole("r_p", 0, 32)


@dataclass(frozen=True)
class FreeDragConfig(_LatentSettings):
    """How to drag with FreeDrag. The defaults are its published ones.

    Attributes:
        l_expected: Distance (mean L1) of a template to the features at the next waypoint that is
            aimed at, above 0, at most 1000.
        d_max: Farthest waypoint, in supervision pixels, above 0, at most 100.
        win_r: Radius of the templates, in supervision pixels, 0 to 16.
        inner_steps: Most updates between two waypoints, 1 to 1000.
    """

    iterations: int = 300
    lr: float = 0.01
    lam: float = 10.0
    l_expected: float = 1.0
    d_max: float = 5.0
    win_r: int = 4
    inner_steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_real("l_expected", "above 0 and at most 1000", lambda x: 0 < x <= 1000)
        self._check_real("d_max", "above 0 and at most 100", lambda x: 0 < x <= 100)
        self._check_whole("win_r", 0, 16)
        self._check_whole("inner_steps", 1, 1000)


@dataclass(frozen=True)
class GoodDragConfig(_LatentSettings):
    """How to drag with GoodDrag. The defaults are its published ones.

    Attributes:
        r_m: Radius of the motion patch, in supervision pixels (half image pixels), 0 to 32.
        r_p: Radius of the tracking window, in supervision pixels, 0 to 32.
        stride: Longest step of a handle that is supervised, in supervision pixels, above 0, at most
            100.
        motion_steps: Updates between two trackings, 1 to 1000.
        drags_per_step: Trackings between two denoising steps, 1 to 1000.
    """

    strength: float = 0.75
    iterations: int = 210
    lr: float = 0.02
    lam: float = 0.2
    r_m: int = 4
    r_p: int = 12
    stride: float = 4.0
    motion_steps: int = 3
    drags_per_step: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole("r_m", 0, 32)
        self._check_whole("r_p", 0, 32)
        self._check_real("stride", "above 0 and at most 100", lambda value: 0 < value <= 100)
        self._check_whole("motion_steps", 1, 1000)
        self._check_whole("drags_per_step", 1, 1000)
        rounds = -(-self.iterations // self.updates_per_step)
        if rounds > self.active_steps:
            raise ConfigError(
                f"{self.iterations} iterations, {self.updates_per_step} a denoising step, take "
                f"{rounds} of the {self.active_steps} steps there are; raise motion_steps, "
                "drags_per_step or strength, or lower iterations"
            )

    @property
    def updates_per_step(self) -> int:
        """Updates between two denoising steps."""
        return self.motion_steps * self.drags_per_step


@dataclass(frozen=True)
class StyleInversion(Settings):
    """The settings that finding a picture in a generator depends on.

    Attributes:
        rows: Style vectors that a drag optimises, from the first on.
        steps: Updates of the search.
        lr: Its learning rate.
        towards_mean: How strongly it is drawn towards the mean style vector.
    """

    rows: int
    steps: int
    lr: float
    towards_mean: float


@dataclass(frozen=True)
class DragGANConfig(Settings):
    """How to drag with DragGAN. The defaults are its published ones.

    A generator may bring its own (`drag.json`).

    Attributes:
        iterations: Most iterations of the optimisation, 0 or more; 0 gives the reconstruction.
        lr: Adam's learning rate, above 0, at most 100.
        lam: Weight of the mask term (lambda), 0 to a million.
        r1: Radius of the disc that is moved, in pixels of the generator's picture, 1 to 64.
        r2: Radius of the tracking window, in pixels of the generator's picture, 0 to 64.
        rows: Style vectors that are optimised, from the first on, 1 to 18.
        block: Resolution whose features are supervised, 1 (4 x 4) to 9 (1024 x 1024).
        inversion_steps: Updates with which a picture is found in the generator, 1 to 100,000.
        inversion_lr: Adam's learning rate of that search, above 0, at most 10.
        towards_mean: How strongly the search is drawn towards the mean picture, 0 to 1000.

    Raises:
        ConfigError: Naming the value and its range.
    """

    iterations: int = 300
    lr: float = 1e-3
    lam: float = 10.0
    r1: int = 3
    r2: int = 12
    rows: int = 6
    block: int = 6
    inversion_steps: int = 300
    inversion_lr: float = 0.05
    towards_mean: float = 0.01

    def __post_init__(self) -> None:
        self._check_whole("iterations", 0, 100_000)
        self._check_real("lr", "above 0 and at most 100", lambda value: 0 < value <= 100)
        self._check_real("lam", "from 0 to 1000000", lambda value: 0 <= value <= 1e6)
        self._check_whole("r1", 1, 64)
        self._check_whole("r2", 0, 64)
        self._check_whole("rows", 1, 18)
        self._check_whole("block", 1, 9)
        self._check_whole("inversion_steps", 1, 100_000)
        self._check_real("inversion_lr", "above 0 and at most 10", lambda value: 0 < value <= 10)
        self._check_real("towards_mean", "from 0 to 1000", lambda value: 0 <= value <= 1000)

    @property
    def preparation(self) -> StyleInversion:
        """The settings that everything before the first update depends on."""
        return StyleInversion(self.rows, self.inversion_steps, self.inversion_lr, self.towards_mean)

    @property
    def active_steps(self) -> int:
        """Steps of what comes before the drag."""
        return self.inversion_steps


@dataclass(frozen=True)
class PersonaliseConfig(Settings):
    """How to learn a picture. The defaults are DragNoise's interface settings.

    Attributes:
        steps: Steps of the optimisation, 1 to 100,000; DragNoise's benchmark takes 200.
        rank: Rank of the low-rank matrices, 1 to 1024.
        lr: AdamW's learning rate, above 0, at most 1.
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
        self._check_real("lr", "above 0 and at most 1", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class PictureLimits(Settings):
    """How large a picture may be. A small file can hold a huge one.

    They are compared with what a file's first bytes say, before anything is decoded.

    Attributes:
        picture_pixels: Most pixels of a picture that is read, 1 to 178,956,970 (Pillow's limit).
        picture_side: Most pixels of a side of it, 1 to 65,535.
        edit_pixels: Most pixels of a picture that is edited or generated, 1 to 178,956,970: the
            work and the memory grow faster than they do.

    Raises:
        ConfigError: Naming the value and its range.
    """

    picture_pixels: int = 50_000_000
    picture_side: int = 16_384
    edit_pixels: int = 4_194_304

    def __post_init__(self) -> None:
        self._check_whole("picture_pixels", 1, 178_956_970)
        self._check_whole("picture_side", 1, 65_535)
        self._check_whole("edit_pixels", 1, 178_956_970)

    def check_picture(self, width: int, height: int, name: str) -> None:
        """Check a picture's size before it is decoded.

        Raises:
            ImageError: Naming the size, the limit and the setting.
        """
        if max(width, height) > self.picture_side:
            raise ImageError(
                f"{name} is {width}x{height}; a picture may have {self.picture_side} pixels a "
                "side; make it smaller, or raise picture_side (PictureLimits)"
            )
        if width * height > self.picture_pixels:
            raise ImageError(
                f"{name} is {width}x{height}, {width * height} pixels; a picture may have "
                f"{self.picture_pixels}; make it smaller, or raise picture_pixels (PictureLimits)"
            )

    def check_edit(self, width: int, height: int) -> None:
        """Check the size of a picture that is to be edited or generated.

        Raises:
            ImageError: Naming the size, the limit and the setting.
        """
        if width * height > self.edit_pixels:
            raise ImageError(
                f"a picture of {width}x{height} has {width * height} pixels; {self.edit_pixels} "
                "can be edited or generated; make it smaller, or raise edit_pixels (PictureLimits)"
            )


LIMITS = PictureLimits()
"""The limits where no others are given."""
