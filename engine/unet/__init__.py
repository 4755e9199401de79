"""The U-Net, cut at the bottleneck, and the schedule that it is run on."""

from .folded import Constants
from .guidance import Guidance
from .operators import Operators
from .parts import PARTS, Conditioning, Down, Folded, Step, UNet, Up, objections
from .schedule import Schedule

__all__ = [
    "PARTS",
    "Conditioning",
    "Constants",
    "Down",
    "Folded",
    "Guidance",
    "Operators",
    "Schedule",
    "Step",
    "UNet",
    "Up",
    "objections",
]
