"""The settings of methods on a diffusion model, DragNoise's and Fast's among them."""

from dataclasses import dataclass, field
from typing import Self

from ..errors import ConfigError
from .settings import Settings

__all__ = ["FITS", "DiffusionSettings", "DragConfig", "FastConfig", "Inversion"]

FITS = ("rigid", "similarity", "affine")
"""How several handles move one piece: they turn it; and scale it; and stretch and shear it."""


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

    steps: int = 5
    iterations: int = 5
    r_m: int = 3
    r_p: int = 3
    grip_px: float = 24.0
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
