"""The settings of an edit and of a training, checked once."""

from .checks import checked_priority, flag, function, of_kind, real, seconds, shown, whole
from .diffusion import FITS, DiffusionSettings, DragConfig, FastConfig
from .gan import DragGANConfig, StyleInversion
from .latent import DragDiffusionConfig, FreeDragConfig, GoodDragConfig, Mutual
from .limits import LIMITS, PictureLimits
from .personalise import PersonaliseConfig
from .pixels import WarpConfig
from .settings import DragSettings, Settings

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
    "WarpConfig",
    "checked_priority",
    "flag",
    "function",
    "of_kind",
    "real",
    "seconds",
    "shown",
    "whole",
]
