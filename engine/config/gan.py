"""The settings of DragGAN."""

from dataclasses import dataclass

from .settings import Settings

__all__ = ["DragGANConfig", "StyleInversion"]


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
