"""The U-Net, cut at the bottleneck, and the schedule that it is run on."""

from ..schedule import Schedule
from .check import objections
from .conditioning import Conditioning, Step
from .folded import Constants
from .guidance import Guidance
from .operators import Operators
from .unet import PARTS, Down, Folded, UNet, Up

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
