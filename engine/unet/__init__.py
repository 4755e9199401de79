"""The U-Net, cut at the bottleneck, and the schedule that it is run on."""

from .guidance import Guidance
from .operators import Operators
from .parts import PARTS, Conditioning, Down, Folded, Step, UNet, Up, objections
from .schedule import Schedule

__all__ = [
    "PARTS",
    "Conditioning",
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
