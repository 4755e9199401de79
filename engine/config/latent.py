"""The settings of methods that optimise the noisy latent and denoise by mutual attention."""

from dataclasses import dataclass

from ..errors import ConfigError
from .diffusion import DiffusionSettings
from .settings import Settings

__all__ = ["DragDiffusionConfig", "FreeDragConfig", "GoodDragConfig", "Mutual"]


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
