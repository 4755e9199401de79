"""The settings of the methods that move pixels, without a model."""

from dataclasses import dataclass

from .diffusion import FITS
from .settings import Settings

__all__ = ["WarpConfig"]


@dataclass(frozen=True)
class WarpConfig(Settings):
    """How to drag by moving pixels, without a model.

    Attributes:
        grip_px: Radius around a handle that goes its whole way, where no grip is given, in image
            pixels, 0 to 1000.
        fit: How several handles move one piece, a grip or discs that touch: "rigid" turns it,
            "similarity" scales it too, "affine" stretches and shears it.

    Raises:
        ConfigError: Naming the value and its range.
    """

    grip_px: float = 16.0
    fit: str = "similarity"

    def __post_init__(self) -> None:
        self._check_real("grip_px", "from 0 to 1000", lambda value: 0 <= value <= 1000)
        self._check_choice("fit", FITS)

    @property
    def iterations(self) -> int:
        """Updates: nothing is optimised."""
        return 0

    @property
    def lr(self) -> float:
        """The learning rate of no updates."""
        return 1.0

    @property
    def lam(self) -> float:
        """Above 0: what the mask leaves out stays."""
        return 1.0

    @property
    def preparation(self) -> Settings:
        """The settings that everything before the drag depends on: none."""
        return Settings()
